"""Tornado's Application, with less on the way of a request to its handler."""

import asyncio
import contextvars
import functools
import time
from collections.abc import Awaitable, Coroutine
from typing import Any

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.log import app_log
from tornado.routing import URLSpec, _RoutingDelegate
from tornado.web import Application, RequestHandler


class PlainRequest(HTTPServerRequest):
    """A request whose target is a path alone.

    Tornado would parse the query that there is none of, copy what it found, and check and take
    apart the host, which is the same as the one before: 10 % of a page.

    :raises HTTPInputError: when the host is malformed.
    :raises KeyError: when it is missing.
    """

    def __init__(
        self,
        connection: HTTPConnection,
        server_connection: object,
        start_line: RequestStartLine,
        headers: HTTPHeaders,
    ) -> None:
        self.method, self.uri, self.version = start_line
        self.path, self.query = start_line.path, ""
        self.headers = headers
        self.host = headers["Host"]
        self.host_name = _host_name(self.host)
        self.connection = connection
        self.server_connection = server_connection
        context: Any = connection.context  # type: ignore[attr-defined]
        self.remote_ip = context.remote_ip
        self.protocol = context.protocol
        self.body, self.files = b"", {}
        self.arguments, self.query_arguments, self.body_arguments = {}, {}, {}
        self._start_time = time.time()
        self._finish_time = None


@functools.lru_cache(maxsize=64)
def _host_name(host: str) -> str:
    line = RequestStartLine("GET", "/", "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": host})).host_name


class _Steps:
    """Runs a coroutine from one future that it awaits to the next, the first step at once.

    A Task would do it a turn of the loop later, and costs 4 % of a page. There is no current task
    meanwhile (`asyncio.current_task`).
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._context = contextvars.copy_context()
        self._context.run(self._step)

    def _step(self, awaited: "asyncio.Future[Any] | None" = None) -> None:
        try:
            future = self._coroutine.send(None)
        except StopIteration:
            return
        future._asyncio_future_blocking = False  # as a Task does: it is taken care of
        future.add_done_callback(self._step, context=self._context)


async def _execute(handler: Any) -> None:
    """Run GET or HEAD, as Tornado's `_execute` does.

    That looks first for a body, arguments in the path and `prepare`: 5 % of a page.
    """
    try:
        await (handler.get() if handler.request.method == "GET" else handler.head())
        if not handler._finished:
            handler.finish()
    except (Exception, asyncio.CancelledError) as error:
        try:
            handler._handle_request_exception(error)
        except Exception:
            app_log.error("Exception in exception handler", exc_info=True)


class _PathDelegate(_RoutingDelegate):
    """Tornado's, but for handlers that begin at once, to which it hands requests by itself."""

    router: "PathApplication"
    _rule: URLSpec | None = None
    _request: PlainRequest

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        rule = self.router.at_once.get(start_line.path)
        if rule is None or start_line.method not in ("GET", "HEAD") or "Host" not in headers:
            return super().headers_received(start_line, headers)
        self._request = PlainRequest(self.request_conn, self.server_conn, start_line, headers)
        self._rule = rule
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        # A body of GET or HEAD means nothing (RFC 9110, 9.3.1).
        return None if self._rule is not None else super().data_received(chunk)

    def finish(self) -> None:
        if self._rule is None:
            super().finish()
            return
        _Steps(_execute(self.router.begin(self._rule, self._request)))


class PathApplication(Application):
    """Tornado's application, with a shorter way to handlers that begin at once.

    These say so by a true ``BEGINS_AT_ONCE``, and have a path that stands for itself alone. Their
    GET and HEAD are coroutines, which begin when the request is whole; `prepare` is not called, a
    body is passed over, templates are not to be had. They run in no Task, so nothing that they
    await may ask for one, as `asyncio.timeout` does, or yield to the loop without a future.

    Where Tornado is instrumented (OpenTelemetry wraps its `__init__`), all go its own way.
    """

    def __init__(self, rules: list[URLSpec], **settings: Any) -> None:
        super().__init__(rules, **settings)
        self._rules = rules
        self._by_path = {_pattern(rule): rule for rule in rules}
        is_instrumented = hasattr(RequestHandler.__init__, "__wrapped__")
        self.at_once: dict[str, URLSpec] = {
            path: rule
            for path, rule in self._by_path.items()
            if getattr(rule.handler_class, "BEGINS_AT_ONCE", False) and not is_instrumented
        }
        """The rules of handlers that begin at once, by path."""

    def begin(self, rule: URLSpec, request: PlainRequest) -> Any:
        """Do what a handler's `__init__` does, but for what templates use: 4 % of a page."""
        handler = rule.handler_class.__new__(rule.handler_class)
        handler.application = self
        handler.request = request
        handler._headers_written = handler._finished = False
        handler._transforms = [transform(request) for transform in self.transforms]
        handler.clear()
        connection: Any = request.connection
        connection.set_close_callback(handler.on_connection_close)
        handler.initialize(**rule.kwargs or {})
        return handler

    @property
    def routes(self) -> list[str]:
        """The routing table's names: a path, or what stands for several."""
        return [rule.name or _pattern(rule) for rule in self._rules]

    def route_of(self, path: str) -> str | None:
        """Return which of the routes a path belongs to."""
        if path in self._by_path:
            return path
        return next((rule.name for rule in self._rules if rule.regex.match(path)), None)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Take a request, as Tornado does."""
        return _PathDelegate(self, server_conn, request_conn)


def _pattern(rule: URLSpec) -> str:
    return str(rule.regex.pattern).removesuffix("$")
