"""Tornado's Application with an eager start: a shorter way from a request to its handler."""

import functools
import re
from collections.abc import Awaitable
from typing import Any

from tornado import web
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.routing import PathMatches, Rule

from http1.eager import EagerTask
from http1.tornado_internals import (
    PathRequest,
    Request,
    RoutingDelegate,
    ended,
    new_handler,
)


class _EagerDelegate(RoutingDelegate):
    """Tornado's delegate, but it starts handlers with an eager start itself."""

    router: "Application"
    _rule: Rule | None = None
    _request: Request
    _passes_over = False  # whether it drops the body

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        path, has_query, _ = start_line.path.partition("?")
        rule = self.router.eager.get(path)
        host = headers.get("Host")
        if rule is None or start_line.method not in ("GET", "HEAD") or host is None:
            return self._start_as_tornado(start_line, headers)
        if has_query:
            self._request = self._whole_request(start_line, headers)
        else:
            self._request = PathRequest(
                self.request_conn, self.server_conn, start_line, headers, host
            )
        self._rule = rule
        self._passes_over = True  # a body of GET or HEAD means nothing (RFC 9110, 9.3.1)
        return None

    def _whole_request(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Request:
        return Request(
            connection=self.request_conn,
            server_connection=self.server_conn,
            start_line=start_line,
            headers=headers,
        )

    def _start_as_tornado(
        self, start_line: RequestStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self.delegate = self.router.find_handler(self._whole_request(start_line, headers))
        waited_for = self.delegate.headers_received(start_line, headers)
        handler = getattr(self.delegate, "handler_class", None)
        most = getattr(handler, "MAX_BODY_SIZE", None)
        if most:
            self.request_conn.set_max_body_size(most)  # type: ignore[attr-defined]
        elif most == 0:
            self._passes_over = True
            for name in ("Content-Type", "Content-Encoding"):  # they describe the dropped body
                headers.pop(name, None)
        return waited_for

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None if self._passes_over else super().data_received(chunk)

    def finish(self) -> None:
        """Start the handler; Tornado looks first for a body, path arguments and `prepare`."""
        if self._rule is None:
            super().finish()
        else:
            handler = new_handler(self.router, self._rule, self._request)
            method = handler.get if self._request.method == "GET" else handler.head
            EagerTask(method, functools.partial(ended, handler))


class Application(web.Application):
    """Takes the place of `tornado.web.Application`. Its handlers may have an eager start.

    A handler asks for an eager start by a true ``EAGER_START``. Its path must have no regular
    expression in it. Its ``get`` and ``head`` are coroutines, and begin in the same turn of the
    loop in which the request has arrived. The server does not call `prepare`, drops the body, and
    prepares no templates. The coroutines run without a Task. So nothing that they await may need a
    Task, as `asyncio.timeout` does, or yield to the loop without a future.

    All requests go Tornado's own way if there are rules for hosts, or if Tornado is instrumented
    (OpenTelemetry wraps the `__init__` of its handlers).
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        is_instrumented = hasattr(web.RequestHandler.__init__, "__wrapped__")
        self.eager: dict[str, Rule] = {} if is_instrumented else self._eager_rules()
        """The rules of handlers that start eagerly, by path."""

    def _eager_rules(self) -> dict[str, Rule]:
        found: dict[str, Rule] = {}
        before: list[PathMatches] = []
        for rule in self.wildcard_router.rules:
            if not isinstance(rule.matcher, PathMatches):
                break  # such a rule may match any path
            pattern = rule.matcher.regex.pattern.removesuffix("$")
            is_plain = re.fullmatch(r"([\w/-]|\\\W)+", pattern)  # as re.escape() writes a path
            path = re.sub(r"\\(\W)", r"\1", pattern)
            is_first = not any(other.regex.match(path) for other in before)
            if is_plain and is_first and getattr(rule.target, "EAGER_START", False):
                found[path] = rule
            before.append(rule.matcher)
        return found

    def add_handlers(self, *args: Any, **kwargs: Any) -> None:
        """Add rules for a host, as Tornado does."""
        super().add_handlers(*args, **kwargs)
        self.eager.clear()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Return the delegate that takes a request, as Tornado does."""
        return _EagerDelegate(self, server_conn, request_conn)
