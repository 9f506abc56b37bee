"""The private parts of Tornado that the package uses, each with its reason.

No other module of the package uses Tornado's private parts. So for a new version of Tornado, check
only this module. ``tests/test_house.py`` names the version.
"""

import asyncio
import functools
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from tornado import httpserver, web

# Decompresses a request's body, for ``HTTPServer(decompress_request=True)``.
from tornado.http1connection import _GzipMessageDelegate as GzipMessageDelegate
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    format_timestamp,
)

# Puts a header's name into the one form under which headers are stored.
from tornado.httputil import _normalize_header as normalize_name
from tornado.log import app_log

# Hands a request to the handler that the rules name, unless the handler starts eagerly.
from tornado.routing import Rule
from tornado.routing import _RoutingDelegate as RoutingDelegate

from http1.forwarded import TrustedProxies, scheme
from http1.headers import NONE, ByName, CommonHeaders, PackedFields

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


# Headers. Tornado checks each name and value that it adds, and keeps both in private dicts.


class CheckedHeaders(HTTPHeaders):
    """Tornado's headers, but made without checks. Tornado would check each header again.

    :arg by_name: the headers. Others may share the lists: this class never changes a list.
    """

    def __init__(self, by_name: ByName | PackedFields) -> None:
        self._as_list: Any = by_name
        self._combined_cache = {}

    def add(self, name: str, value: str, **kwargs: Any) -> None:
        """Add a value to a name's values."""
        if isinstance(self._as_list, PackedFields):  # it makes a new list for each look-up
            self._as_list = dict(self._as_list)
        normal = normalize_name(name)
        if normal in self._as_list:
            self._as_list[normal] = self.get_list(normal)
        super().add(normal, value, **kwargs)

    def get_list(self, name: str) -> list[str]:
        """Return the values of a name."""
        values: list[str] = self._as_list.get(normalize_name(name), [])
        return values.copy()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name; several are joined by commas.

        If the name is missing, Tornado's method raises and catches an exception.
        """
        values = self._as_list.get(normalize_name(name))
        return default if values is None else ",".join(values)

    def copy(self) -> HTTPHeaders:
        """Return a copy."""
        return HTTPHeaders(self)

    __copy__ = copy


class AnswerHeaders(CheckedHeaders):
    """An answer's headers. Most of them are common headers, whose text is written only once.

    :arg common: the common headers. When one of them changes, all become the answer's own.
    :arg own: the other headers.
    """

    def __init__(self, common: CommonHeaders, own: ByName) -> None:
        self.common = common
        self.own = own
        self._combined_cache = {}

    @property
    def _as_list(self) -> ByName:  # type: ignore[override]
        """All headers, for Tornado's methods, which may change them."""
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
    """Return the values of each name. Tornado's public way would copy each list."""
    return headers._as_list


# Where a request comes from. Tornado keeps this with the connection. With
# ``HTTPServer(xheaders=True)``, it reads the proxies' headers before each request.


class RequestContext(httpserver._HTTPRequestContext):
    """A client's address and scheme.

    The address of a client on a Unix socket is ``unix``; Tornado's own would be ``0.0.0.0``.

    :arg proxies: the proxies whose headers the server believes; None for Tornado's own way, which
        believes everybody.
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


# Requests and handlers. Tornado prepares each of them for things that only some need.


class Request(HTTPServerRequest):
    """A request that takes its time by the monotonic clock.

    Tornado uses the wall clock. Somebody may set that clock back, and then the time is negative.
    """

    def __init__(self, **options: Any) -> None:
        self._begun = time.monotonic()
        super().__init__(**options)

    def request_time(self) -> float:
        """Return for how many seconds the request has been under way."""
        return time.monotonic() - self._begun


class PathRequest(Request):
    """A request whose target is a path alone.

    Tornado would parse and copy the query, although there is none, and would check and split the
    host, although it is the same as in the last request.

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
    """Tornado's handler, but its answers take fewer steps.

    An answer has no ETag, unless a subclass computes one. It has no ``Server`` header, because that
    would name Tornado's version.
    """

    #: Headers of every answer of the handler, also of errors. The names are in HTTP's usual form.
    HEADERS: ClassVar[Mapping[str, str]] = {}

    MAX_BODY_SIZE: ClassVar[int | None] = None
    """Bytes that a request's body may have; None for the server's own limit.

    With 0, the server reads a body of any size up to its own limit, and drops it.
    """

    EAGER_START: ClassVar[bool] = False
    """Whether GET and HEAD start eagerly; see `http1.Application`."""

    @property
    def client_has_gone(self) -> bool:
        """Whether nobody can read the answer: the client has closed or reset the connection.

        A client that has closed only its own side still reads (RFC 9112, 9.6). Tornado's own server
        closes the connection of such a client, so with that server this is true.
        """
        connection: Any = self.request.connection
        try:
            return connection.client_has_gone  # type: ignore[no-any-return]
        except AttributeError:  # Tornado's
            return bool(connection.stream.closed())

    def clear(self) -> None:
        """Begin the answer. Its common headers are written once a second.

        Tornado would check one after the other, and format the date each time.
        """
        common = _common_headers(type(self), int(time.time()))  # type: ignore[arg-type]
        self._headers = AnswerHeaders(common, {})
        self._write_buffer = []
        self._status_code, self._reason = 200, "OK"
        self.set_default_headers()

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """Finish the answer, as Tornado does.

        An answer whose whole text is given here takes fewer steps.
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
        """Set a header to a value that is known to be valid; `set_header` checks each byte."""
        self._headers[name] = value

    def compute_etag(self) -> str | None:
        """Return no ETag: no two answers are the same, and ``If-None-Match: *`` gets the page."""
        return None


@functools.lru_cache(maxsize=16)
def _common_headers(handler_class: type[RequestHandler], second: int) -> CommonHeaders:
    headers = {**handler_class.HEADERS, "Date": format_timestamp(second)}
    return CommonHeaders({name: [value] for name, value in headers.items()})


def new_handler(application: web.Application, rule: Rule, request: Request) -> Any:
    """Make a handler as its `__init__` does, except for the parts that only templates use."""
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

    :arg error: the method's exception; None for none.
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
    """Call a function when a future that a coroutine has yielded is done, as a Task does.

    A Task marks such a future as awaited. asyncio has no public way to do so.

    :arg resume: takes the future.
    :arg context: the function runs in it.
    """
    future._asyncio_future_blocking = False
    future.add_done_callback(resume, context=context)


# The server. Tornado accepts connections in its own way, and keeps the sockets in private dicts.


class ServerHooks(httpserver.HTTPServer):
    """Tornado's server, with public names for the parts that a subclass needs."""

    accept_from: Callable[[socket.socket], Callable[[], None]]
    """Accepts connections from a listening socket, and returns a function that ends it."""

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections from listening sockets, until the server stops."""
        for listening in sockets:
            self._sockets[listening.fileno()] = listening
            self._handlers[listening.fileno()] = self.accept_from(listening)

    @property
    def listening_sockets(self) -> list[socket.socket]:
        """The sockets that the server listens on."""
        return list(self._sockets.values())
