"""Tornado's Application, with less on the way of a request to its handler."""

import asyncio
import contextvars
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.routing import URLSpec, _RoutingDelegate
from tornado.web import Application, RequestHandler


class PlainRequest(HTTPServerRequest):
    """A request whose target is a path alone.

    Tornado would parse the query that there is none of, copy what it found, and check and take
    apart the host, which is the same as the one before: 8 % of a page.

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

    def _parse_body(self) -> None:
        if self.body:
            super()._parse_body()


@functools.lru_cache(maxsize=64)
def _host_name(host: str) -> str:
    line = RequestStartLine("GET", "/", "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": host})).host_name


class _Steps:
    """Runs a coroutine from one future that it awaits to the next, the first step at once.

    A Task would do it a turn of the loop later, and costs 7 % of a page. There is no current task
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


class _PathDelegate(_RoutingDelegate):
    """Tornado's, but for handlers that begin at once, to which it hands requests by itself."""

    router: "PathApplication"
    _handler: Callable[[HTTPServerRequest], RequestHandler] | None = None
    _request: PlainRequest

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        handler = self.router.at_once.get(start_line.path)
        if handler is None or "Host" not in headers:
            return super().headers_received(start_line, headers)
        self._request = PlainRequest(self.request_conn, self.server_conn, start_line, headers)
        self._handler = handler
        self._chunks: list[bytes] = []
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if self._handler is None:
            return super().data_received(chunk)
        self._chunks.append(chunk)
        return None

    def finish(self) -> None:
        if self._handler is None:
            super().finish()
            return
        if self._chunks:
            self._request.body = b"".join(self._chunks)
        transforms = [transform(self._request) for transform in self.router.transforms]
        _Steps(self._handler(self._request)._execute(transforms))


class PathApplication(Application):
    """Tornado's application, with a shorter way to handlers that begin at once.

    These say so by a true ``BEGINS_AT_ONCE``, have a path that stands for itself alone, and get
    a body whole. They run in no Task, so nothing that they await may ask for one, as
    `asyncio.timeout` does, or yield to the loop without a future.
    """

    def __init__(self, rules: list[URLSpec], **settings: Any) -> None:
        super().__init__(rules, **settings)
        self._rules = rules
        self._by_path = {_pattern(rule): rule for rule in rules}
        self.at_once: dict[str, Callable[[HTTPServerRequest], RequestHandler]] = {
            path: functools.partial(rule.handler_class, self, **rule.kwargs or {})
            for path, rule in self._by_path.items()
            if getattr(rule.handler_class, "BEGINS_AT_ONCE", False)
        }
        """What makes a handler that begins at once, by path."""

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
