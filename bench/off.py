"""Turns the tricks of `docs/design.md` off: each function puts a plain way in a trick's place.

The functions look the names up when they are called, so they fail if a trick has moved.
"""

import asyncio
import functools
import gc
import math
import pkgutil
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from tornado import web
from tornado.httputil import HTTPHeaders
from tornado.log import access_log

from bench.visitors import JSON, KEPT, LOGGED, NEW


def _put(name: str, value: object) -> Any:
    """Replace the object of a dotted name.

    :return: the object that had the name before.
    :raises AttributeError: when there is no such name.
    """
    owner, _, attribute = name.rpartition(".")
    before = pkgutil.resolve_name(name)
    setattr(pkgutil.resolve_name(owner), attribute, value)
    return before


_found: Callable[[str], Any] = pkgutil.resolve_name

_INTERNALS = "http1.tornado_internals"


# Answers.


def common_headers() -> None:
    """Check each header of an answer, and format the date, each time."""

    def clear(handler: Any) -> None:
        web.RequestHandler.clear(handler)
        handler.clear_header("Server")
        for name, value in handler.HEADERS.items():
            handler.set_header(name, value)

    _put(f"{_INTERNALS}.RequestHandler.clear", clear)


def common_lines() -> None:
    """Write the common headers into each answer."""
    checked = _found(f"{_INTERNALS}.CheckedHeaders")
    _put(f"{_INTERNALS}.AnswerHeaders", lambda common, own: checked(common.by_name | own))


def whole_answer() -> None:
    """Finish an answer with all of Tornado's checks."""
    _put(f"{_INTERNALS}.RequestHandler.finish", web.RequestHandler.finish)


# Requests.


def known_heads() -> None:
    """Parse each head."""
    _put("http1.head._parse_cached", _found("http1.head._parse"))


def path_requests() -> None:
    """Parse each target and host."""
    request = _found(f"{_INTERNALS}.Request")

    def new(connection: Any, server: Any, line: Any, headers: Any, host: str) -> Any:
        return request(
            connection=connection, server_connection=server, start_line=line, headers=headers
        )

    _put("http1.web.PathRequest", new)


def checked_headers() -> None:
    """Check each header of a request once more."""

    def headers(head: Any) -> HTTPHeaders:
        found = HTTPHeaders()
        for name, values in head.fields.items():
            for value in values:
                found.add(name, value)
        return found

    _put("http1.head.Head.headers", headers)


def missing_headers() -> None:
    """Raise and catch an exception for each header that is missing."""
    _put(f"{_INTERNALS}.CheckedHeaders.get", Mapping.get)


def request_id() -> None:
    """Make request ids with `uuid.uuid4`, as if they were secrets."""

    def new(headers: HTTPHeaders) -> str:
        return before(headers) if "X-Request-Id" in headers else uuid.uuid4().hex

    before = _put("handlers.base._request_id", new)


# Handlers.


def direct_call() -> None:
    """Call a handler through Tornado's `_execute`, which also calls `prepare`."""
    eager, new_handler = _found("http1.web.EagerTask"), _found("http1.web.new_handler")

    def finish(delegate: Any) -> None:
        handler = new_handler(delegate.router, delegate._rule, delegate._request)
        handler._prepared_future, handler._auto_finish = None, True
        eager(functools.partial(handler._execute, handler._transforms), lambda error: None)

    _put("http1.web._EagerDelegate.finish", finish)


def short_init() -> None:
    """Make a handler with Tornado's `__init__`."""

    def new(application: Any, rule: Any, request: Any) -> Any:
        handler = rule.target(application, request, **rule.target_kwargs)
        handler._transforms = [transform(request) for transform in application.transforms]
        return handler

    _put("http1.web.new_handler", new)


def _as_task(begin: Any, on_end: Any) -> None:
    async def run() -> None:
        try:
            await begin()
        except Exception as error:
            on_end(error)
        else:
            on_end(None)

    asyncio.get_running_loop().create_task(run())


def eager_start() -> None:
    """Make a Task for each request."""
    _put("http1.web.EagerTask", _as_task)


# Connections.


def open_at_once() -> None:
    """Make a Task for each connection."""
    _put("http1.server.EagerTask", _as_task)


def first_look() -> None:
    """Set a timer for each connection."""
    _put("http1.first_look.FirstLook.add", lambda looks, connection: math.inf)
    _put("http1.first_look.FirstLook.discard", lambda looks, connection: None)


# The process, and its log.


def less_garbage() -> None:
    """Collect garbage as often as Python does by default."""
    _put("server.collect_less_garbage", gc.enable)


def lines_of_a_turn() -> None:
    """Write each log line by itself."""
    _put("watch.logs._TurnHandler._schedule", lambda handler: handler.flush())


def no_record() -> None:
    """Make a log record for each request."""
    _put("watch.logs._text_handler", lambda: None)


def known_time() -> None:
    """Format the time of each line."""

    def init(formatter: Any) -> None:
        before(formatter)
        formatter._before = formatter._format_before

    before = _put("watch.logs._TextFormatter.__init__", init)


def known_record() -> None:
    """Ask the system and the stack again for each request's log record."""

    def record(handler: Any, level: int, said: str, milliseconds: float) -> Any:
        file, line, function, stack = access_log.findCaller()
        name = access_log.name
        made = access_log.makeRecord(name, level, file, line, said, (), None, function, None, stack)
        made.method, made.path = handler.request.method, shortened(handler.request.path)
        made.status, made.duration_ms = handler.get_status(), round(milliseconds, 3)
        made.remote, made.request_id = handler.request.remote_ip, handler.request_id
        if parent := traceparent(handler.request.headers):
            made.traceparent = parent
        return made

    shortened, traceparent = _found("watch.logs.shortened"), _found("watch.logs._traceparent")
    _put("watch.logs._record", record)


#: These functions, by the kind of page that each trick makes cheaper.
TRICKS: dict[str, tuple[Callable[[], None], ...]] = {
    KEPT: (
        common_headers,
        known_heads,
        path_requests,
        checked_headers,
        request_id,
        direct_call,
        less_garbage,
        eager_start,
        short_init,
        common_lines,
        missing_headers,
        whole_answer,
    ),
    NEW: (open_at_once, first_look),
    LOGGED: (lines_of_a_turn, no_record, known_time),
    JSON: (known_record,),
}
