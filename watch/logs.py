"""The form of log lines: text for a terminal, or one JSON object a line."""

import asyncio
import contextlib
import functools
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.log import LogFormatter, access_log
from tornado.web import RequestHandler

from process import StandardError, one_line, take_standard_error

#: ``version-trace-parent-flags`` (https://www.w3.org/TR/trace-context/#traceparent-header).
#: Versions after 00 may append anything. Neither id may be all zeros, and ff is no version.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(-[!-~]{0,200})?"
)


#: How many characters from a client a log line may have. A line of JSON has two texts, each of half
#: this length.
LONGEST = 1024


def shortened(text: str, most: int = LONGEST // 2) -> str:
    """Return a text, cut to the length that a log line may have, with ``…`` for the rest.

    :arg most: characters to keep.
    """
    return text if len(text) <= most else text[:most] + "…"


def configure_logs(
    log_format: str, level: str = "info", on_dropped: Callable[[int], None] = lambda lines: None
) -> None:
    """Log to standard error, and drop the lines that standard error cannot take.

    :arg log_format: ``text`` or ``json``.
    :arg level: the lowest level that is logged: ``debug``, ``info``, ``warning``, ``error`` or
        ``critical``.
    :arg on_dropped: called with the number of lines whenever some are dropped, by any thread.
    """
    error = take_standard_error()
    is_text = log_format == "text"
    kind = _TextHandler if is_text else _TurnHandler
    handler = kind(error) if error else logging.NullHandler()
    handler.addFilter(_escape)
    if not is_text:
        with contextlib.suppress(ImportError):  # OpenTelemetry is not always installed
            from watch.tracing import name_span

            handler.addFilter(name_span)
    handler.setFormatter(_TextFormatter() if is_text else _json_formatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if error:
        error.on_dropped = on_dropped


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter  # here, as text logs do not need it

    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
    )


class _TurnHandler(logging.Handler):
    """Writes all lines of one turn of the event loop together."""

    def __init__(self, error: StandardError) -> None:
        super().__init__()
        self._error = error
        error.note = self._note
        self._lines: list[str] = []
        self._is_due = False  # the loop will call `flush`

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line at the end of the loop's turn, or at once when no loop runs."""
        try:
            self._take(self.format(record))
        except Exception:
            self.handleError(record)

    def _take(self, line: str) -> None:
        self._lines.append(line)
        if not self._is_due:
            self._schedule()

    def _schedule(self) -> None:
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            self.flush()
        else:
            self._is_due = True

    def flush(self) -> None:
        """Hand the lines over to standard error."""
        self.acquire()
        try:
            lines, self._lines, self._is_due = self._lines, [], False
            if lines:
                self._error.write(_encoded(lines))
        finally:
            self.release()

    def close(self) -> None:
        """Wait a moment until all lines are written. `logging` calls this at the program's end."""
        self.flush()
        self._error.finish()
        super().close()

    def _note(self, lines: int) -> bytes:
        said = f"{lines} log lines were dropped, as standard error did not take them"
        line = _TurnHandler._note.__code__.co_firstlineno
        record = logging.LogRecord("friendlyhello", logging.ERROR, __file__, line, said, None, None)
        return _encoded([self.format(record)])


def _encoded(lines: Sequence[str]) -> bytes:
    return "\n".join((*lines, "")).encode(sys.stderr.encoding, sys.stderr.errors or "strict")


class _TextFormatter(LogFormatter):
    """Tornado's format, but the text before the message is written only once a second."""

    def __init__(self) -> None:
        super().__init__()
        self._before = functools.lru_cache(maxsize=16)(self._format_before)

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.exc_text:
            return super().format(record)
        where = record.module, record.lineno
        before = self._before(int(record.created), record.levelno, record.levelname, *where)
        return f"{before}{record.getMessage()}"

    def before_request(self, second: int, level: int) -> str:
        """Return the start of a request's log line."""
        common = _common(level)
        return self._before(second, level, common["levelname"], common["module"], common["lineno"])

    def _format_before(
        self, second: int, levelno: int, levelname: str, module: str, lineno: int
    ) -> str:
        fields = {"levelno": levelno, "levelname": levelname, "module": module, "lineno": lineno}
        return super().format(logging.makeLogRecord({**fields, "created": second}))


class _TextHandler(_TurnHandler):
    """Also writes the lines of requests, without making log records."""

    formatter: _TextFormatter

    def take(self, level: int, message: str) -> None:
        """Write a request's line without a record."""
        line = f"{self.formatter.before_request(int(time.time()), level)}{one_line(message)}"
        assert self.lock is not None
        with self.lock:
            self._take(line)


def _text_handler() -> _TextHandler | None:
    """Return the handler of text logs; None when other handlers or filters need the records."""
    handlers = logging.root.handlers
    handler = handlers[0] if len(handlers) == 1 else None
    if not isinstance(handler, _TextHandler) or handler.level or handler.filters != [_escape]:
        return None
    others = access_log.handlers or access_log.filters or access_log.parent is not logging.root
    return None if others else handler


def _escape(record: logging.LogRecord) -> bool:
    """Keep a message on one line, whatever bytes from a client it has."""
    message = record.getMessage()
    if record.name in ("tornado.application", "tornado.general"):  # these quote clients at length
        message = shortened(message, LONGEST)
    record.msg, record.args = one_line(message), None
    return True


def log_request(handler: RequestHandler) -> None:
    """Log an answered request. It is Tornado's ``log_function``."""
    request, status = handler.request, handler.get_status()
    level = getattr(handler, "LOG_LEVEL", None) or _level(status)
    if not access_log.isEnabledFor(level):
        return
    milliseconds = 1000 * request.request_time()
    uri = shortened(request.uri or "")
    said = f"{status} {request.method} {uri} ({request.remote_ip}) {milliseconds:.2f}ms"
    if text := _text_handler():
        text.take(level, said)
    else:
        access_log.handle(_record(handler, level, said, milliseconds))


def _record(
    handler: RequestHandler, level: int, said: str, milliseconds: float
) -> logging.LogRecord:
    """Return the record of a request, with fields for JSON.

    `Logger.log` would ask the system and the stack, for each record, for fields that all of these
    records share.
    """
    request, now = handler.request, time.time()
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__ = fields = _common(level).copy()
    fields["created"] = now
    fields["msecs"] = now % 1 * 1000
    fields["msg"] = said
    fields["method"] = request.method
    fields["path"] = shortened(request.path)
    fields["status"] = handler.get_status()
    fields["duration_ms"] = round(milliseconds, 3)
    fields["remote"] = request.remote_ip
    fields["request_id"] = getattr(handler, "request_id", None)
    if traceparent := _traceparent(request.headers):
        fields["traceparent"] = traceparent
    return record


@functools.cache
def _common(level: int) -> dict[str, Any]:
    """Return the fields that the records of all requests share."""
    line = log_request.__code__.co_firstlineno
    return vars(access_log.makeRecord(access_log.name, level, __file__, line, "", (), None))


def _level(status: int) -> int:
    return logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR


def _traceparent(headers: HTTPHeaders) -> str | None:
    given = headers.get_list("Traceparent")
    return given[0] if len(given) == 1 and _TRACEPARENT.fullmatch(given[0]) else None
