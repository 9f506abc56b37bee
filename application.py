"""Tornado's Application, with less on the way of a request to its handler."""

import asyncio
import functools
import time
import types
from collections.abc import Awaitable, Coroutine
from typing import Any, cast

from tornado import gen
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.routing import URLSpec, _RoutingDelegate
from tornado.web import Application

#: Handlers' coroutines under way; the loop itself would not keep them (`asyncio.create_task`).
_handling: set[asyncio.Task[None]] = set()


def _handle(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run a coroutine; Tornado asks first whether it is anything else: 5 % of a page."""
    try:
        task = asyncio.get_running_loop().create_task(coroutine)
    except RuntimeError:  # before the loop runs
        task = asyncio.ensure_future(coroutine)
    _handling.add(task)
    task.add_done_callback(_handling.discard)
    return task


cast(Any, gen.convert_yielded).register(types.CoroutineType, _handle)


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


@functools.lru_cache(maxsize=64)
def _host_name(host: str) -> str:
    line = RequestStartLine("GET", "/", "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": host})).host_name


class _PathDelegate(_RoutingDelegate):
    """Tornado's, but for the class of the request."""

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        if "?" in start_line.path or "Host" not in headers:
            return super().headers_received(start_line, headers)
        request = PlainRequest(self.request_conn, self.server_conn, start_line, headers)
        self.delegate = cast(HTTPMessageDelegate, self.router.find_handler(request))
        return self.delegate.headers_received(start_line, headers)


class PathApplication(Application):
    """Tornado's application, which finds a page by its path alone."""

    def __init__(self, rules: list[URLSpec], **settings: Any) -> None:
        super().__init__(rules, **settings)
        self._rules = rules
        self._by_path = {_pattern(rule): rule for rule in rules}

    @property
    def routes(self) -> list[str]:
        """The routing table's names: a path, or what stands for several."""
        return [rule.name or _pattern(rule) for rule in self._rules]

    def route_of(self, path: str) -> str | None:
        """Return which of the routes a path belongs to."""
        if path in self._by_path:
            return path
        return next((rule.name for rule in self._rules if rule.regex.match(path)), None)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return what handles a request; Tornado tries one rule after the other: 8 % of a page."""
        rule = self._by_path.get(request.path)
        if rule is None:
            return super().find_handler(request, **kwargs)
        return self.get_handler_delegate(request, rule.handler_class, rule.kwargs)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Take a request, as Tornado does."""
        return _PathDelegate(self, server_conn, request_conn)


def _pattern(rule: URLSpec) -> str:
    return str(rule.regex.pattern).removesuffix("$")
