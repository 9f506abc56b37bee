"""The private parts of Tornado that the package uses, each with its reason.

No other module of the package reaches behind Tornado's public interface, so that a new version
of it has to be checked against this page alone. ``tests/test_house.py`` names the version.
"""

import asyncio
import functools
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from tornado import httpserver, web

# Takes what a request's body is decompressed by: ``HTTPServer(decompress_request=True)``.
from tornado.http1connection import _GzipMessageDelegate as GzipMessageDelegate
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    format_timestamp,
)

# The one form of a header's name by which headers are found.
from tornado.httputil import _normalize_header as normalize_name
from tornado.log import app_log

# Hands a request to the handler that the rules name; what is not started eagerly goes its way.
from tornado.routing import Rule
from tornado.routing import _RoutingDelegate as RoutingDelegate

from http1.forwarded import TrustedProxies, scheme
from http1.headers import NONE, ByName, CommonHeaders

__all__ = [
    "AnswerHeaders",
    "CheckedHeaders",
    "GzipMessageDelegate",
    "PathRequest",
    "Request",
    "RequestContext",
    "RequestHandler",
    "RoutingDelegate",
    "ServerHooks",
    "by_name",
    "ended",
    "new_handler",
    "normalize_name",
    "resume_when_done",
]

#: Statuses whose answers have no content (RFC 9110, 6.4.1).
WITHOUT_CONTENT = frozenset((*range(100, 200), 204, 304))


# Headers. Tornado checks each name and value that is added, and keeps both in private dicts.


class CheckedHeaders(HTTPHeaders):
    """Tornado's headers, taken as they are; it would check each anew: 9 % of a page.

    :arg by_name: the lists may be shared, and are not changed.
    """

    def __init__(self, by_name: ByName) -> None:
        self._as_list = by_name
        self._combined_cache = {}

    def add(self, name: str, value: str, **kwargs: Any) -> None:
        """Add a value to those of a name."""
        normal = normalize_name(name)
        if normal in self._as_list:
            self._as_list[normal] = self.get_list(normal)
        super().add(normal, value, **kwargs)

    def get_list(self, name: str) -> list[str]:
        """Return the values of a name."""
        return self._as_list.get(normalize_name(name), []).copy()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name; several are joined by commas.

        Tornado's raises an exception and catches it where there is none: 4 % of a page.
        """
        values = self._as_list.get(normalize_name(name))
        return default if values is None else ",".join(values)

    def copy(self) -> HTTPHeaders:
        """Return a copy."""
        return HTTPHeaders(self)

    __copy__ = copy


class AnswerHeaders(CheckedHeaders):
    """An answer's headers, most of them common ones, which are not written anew: 4 % of a page.

    :arg common: those. When one of them is changed, all become the answer's own.
    :arg own: the others.
    """

    def __init__(self, common: CommonHeaders, own: ByName) -> None:
        self.common = common
        self.own = own
        self._combined_cache = {}

    @property
    def _as_list(self) -> ByName:  # type: ignore[override]
        """All headers, for the methods that may change any."""
        if self.common is not NONE:
            self.own = self.common.by_name | self.own
            self.common = NONE
        return self.own

    def __setitem__(self, name: str, value: str) -> None:
        normal = normalize_name(name)
        if normal in self.common.by_name:
            super().__setitem__(name, value)
        else:
            self.own[normal] = [value]
            self._combined_cache[normal] = value

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name; several are joined by commas."""
        normal = normalize_name(name)
        values = self.own.get(normal) or self.common.by_name.get(normal)
        return ",".join(values) if values else default


def by_name(headers: HTTPHeaders) -> ByName:
    """Return the values of each name; Tornado's own way to them copies each."""
    return headers._as_list


# Where a request comes from. Tornado keeps it with the connection, and asks before each request
# what proxies say of it: ``HTTPServer(xheaders=True)``.


class RequestContext(httpserver._HTTPRequestContext):
    """A client's address and scheme.

    A client on a Unix socket is called ``unix``; Tornado's would be ``0.0.0.0``.

    :arg proxies: whose headers are believed, in place of anybody's; None for Tornado's own way.
    """

    def __init__(self, *args: Any, proxies: TrustedProxies | None) -> None:
        super().__init__(*args)
        if self.address_family == socket.AF_UNIX:
            self.remote_ip = self._orig_remote_ip = "unix"
        self._proxies = proxies
        self._is_proxy = proxies is not None and proxies.trusts(self.remote_ip)

    def _apply_xheaders(self, headers: HTTPHeaders) -> None:
        if self._proxies is None:
            super()._apply_xheaders(headers)
        elif self._is_proxy:
            if (said := headers.get("X-Forwarded-For")) is not None:
                self.remote_ip = self._proxies.client(said, self._orig_remote_ip)
            if (said := headers.get("X-Forwarded-Proto")) is not None:
                self.protocol = scheme(said, self._orig_protocol)


# Requests and handlers. Tornado prepares each for what only some need.


class Request(HTTPServerRequest):
    """A request whose time is taken by the monotonic clock.

    Tornado takes it by that of the wall, by which it may be negative: the clock may be set.
    """

    def __init__(self, **options: Any) -> None:
        self._begun = time.monotonic()
        super().__init__(**options)

    def request_time(self) -> float:
        """Return for how many seconds the request has been under way."""
        return time.monotonic() - self._begun


class PathRequest(Request):
    """A request whose target is a path alone.

    Tornado would parse the query that there is none of, copy what it found, and check and take
    apart the host, which is the same as the one before: 10 % of a page.

    :raises HTTPInputError: when the host is malformed.
    """

    def __init__(
        self,
        connection: HTTPConnection,
        server_connection: object,
        start_line: RequestStartLine,
        headers: HTTPHeaders,
        host: str,
    ) -> None:
        self.method, self.uri, self.version = start_line
        self.path, self.query = start_line.path, ""
        self.headers = headers
        self.host = host
        self.host_name = _host_name(host)
        self.connection = connection
        self.server_connection = server_connection
        context: Any = connection.context  # type: ignore[attr-defined]
        self.remote_ip = context.remote_ip
        self.protocol = context.protocol
        self.body, self.files = b"", {}
        self.arguments, self.query_arguments, self.body_arguments = {}, {}, {}
        self._start_time, self._begun = time.time(), time.monotonic()
        self._finish_time = None


@functools.lru_cache(maxsize=64)
def _host_name(host: str) -> str:
    line = RequestStartLine("GET", "/", "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": host})).host_name


class RequestHandler(web.RequestHandler):
    """Tornado's handler, whose answers take fewer steps.

    An answer has no ETag, unless a subclass computes one, and no ``Server``, which would name
    Tornado's version.
    """

    #: Headers of every answer of the handler, errors included, as HTTP writes their names.
    HEADERS: ClassVar[Mapping[str, str]] = {}

    MAX_BODY_SIZE: ClassVar[int | None] = None
    """Bytes of a request's body that may be, and are kept; None for as many as the server takes.

    With 0, one of any size that the server takes is passed over as it comes.
    """

    EAGER_START: ClassVar[bool] = False
    """Whether GET and HEAD without a query start eagerly; see `http1.Application`."""

    @property
    def client_has_gone(self) -> bool:
        """Whether nobody is there to read the answer, as the client has reset or closed it.

        A client that has closed its own side alone still reads (RFC 9112, 9.6). Tornado's own
        server closes the connection of such a one, which then has gone.
        """
        connection: Any = self.request.connection
        try:
            return connection.client_has_gone  # type: ignore[no-any-return]
        except AttributeError:  # Tornado's
            return bool(connection.stream.closed())

    def clear(self) -> None:
        """Begin the answer, its common headers written down once a second.

        Tornado would check one after the other, and format the date each time: 27 % of a page.
        """
        common = _common_headers(type(self), int(time.time()))  # type: ignore[arg-type]
        self._headers = AnswerHeaders(common, {})
        self._write_buffer = []
        self._status_code, self._reason = 200, "OK"
        self.set_default_headers()

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """Finish the answer, as Tornado does.

        One that is given whole, as text, takes fewer steps: 4 % of a page.
        """
        connection: Any = self.request.connection
        if (
            not isinstance(chunk, str)
            or not hasattr(connection, "answer")  # Tornado's
            or self._write_buffer
            or self._headers_written
            or self._transforms
            or self._status_code in WITHOUT_CONTENT
        ):
            return super().finish(chunk)
        sent = connection.answer(self._status_code, self._reason, self._headers, chunk.encode())
        self._headers_written = self._finished = True
        self._log()
        self.on_finish()
        self._break_cycles()
        return sent  # type: ignore[no-any-return]

    def set_safe_header(self, name: str, value: str) -> None:
        """Set a header to a value that is known to be one; `set_header` looks at each byte."""
        self._headers[name] = value

    def compute_etag(self) -> str | None:
        """Return none: no two answers are alike, and ``If-None-Match: *`` gets the page."""
        return None


@functools.lru_cache(maxsize=16)
def _common_headers(handler_class: type[RequestHandler], second: int) -> CommonHeaders:
    headers = {**handler_class.HEADERS, "Date": format_timestamp(second)}
    return CommonHeaders({name: [value] for name, value in headers.items()})


def new_handler(application: web.Application, rule: Rule, request: PathRequest) -> Any:
    """Do what a handler's `__init__` does, but for what templates use: 4 % of a page."""
    handler = rule.target.__new__(rule.target)
    handler.application = application
    handler.request = request
    handler._headers_written = handler._finished = False
    handler._transforms = [transform(request) for transform in application.transforms]
    handler.clear()
    connection: Any = request.connection
    connection.set_close_callback(handler.on_connection_close)
    handler.initialize(**rule.target_kwargs)
    return handler


def ended(handler: Any, error: BaseException | None) -> None:
    """End the answer of a handler whose method has ended, as Tornado's `_execute` does.

    :arg error: what the method has raised.
    """
    try:
        if error is not None:
            handler._handle_request_exception(error)
        elif not handler._finished:
            handler.finish()
    except Exception as another:
        if error is None:
            ended(handler, another)
        else:
            app_log.error("Exception in exception handler", exc_info=True)


def resume_when_done(future: "asyncio.Future[Any]", resume: Any, context: Any) -> None:
    """Call back when a future that a coroutine has yielded is done, as a Task does.

    A Task tells the future that it is taken care of; asyncio has no public way to say so.
    """
    future._asyncio_future_blocking = False
    future.add_done_callback(resume, context=context)


# The server. Tornado accepts in a way of its own, and keeps the sockets to itself.


class ServerHooks(httpserver.HTTPServer):
    """Tornado's server, with public names for what a subclass needs."""

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept what comes on sockets that listen, until the server is stopped."""
        for listening in sockets:
            self._sockets[listening.fileno()] = listening
            self._handlers[listening.fileno()] = self.accept_from(listening)

    def accept_from(self, listening: socket.socket) -> Callable[[], None]:
        """Accept what comes on a socket; what is returned ends that."""
        raise NotImplementedError

    @property
    def listening_sockets(self) -> list[socket.socket]:
        """The sockets that it listens on."""
        return list(self._sockets.values())
