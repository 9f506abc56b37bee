"""Tornado's HTTP server, with what it leaves open.

It drains; it refuses a malformed Host, and whatever follows a connection's last request; and
it rests, instead of spinning, while there are no descriptors to accept connections with.
"""

import asyncio
import contextlib
import errno
import functools
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tornado import httpserver
from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop

#: Seconds that listening goes on, and then that idle connections stay open: what a client or a
#: balancer sends before it has heard of the stop is read and answered.
LINGER = 0.1

#: What accept(2) fails with for lack of descriptors or memory, and the seconds until the next try.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
REST = 0.5

#: uri-host and port (RFC 9110, 7.2; RFC 3986, 3.2.2). Tornado refuses no Host, and two.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|([\w.~!$&'()*+,;=-]|%[0-9a-f]{2})*)(:[0-9]*)?", re.I | re.A)

log = logging.getLogger("friendlyhello")


class HTTPServer(httpserver.HTTPServer):
    """Tornado's server, which can drain, and reads nothing after a last request."""

    def initialize(self, *args: object, **kwargs: object) -> None:
        """Take the arguments of Tornado's server."""
        super().initialize(*args, **kwargs)  # type: ignore[arg-type]
        self._busy: set[object] = set()
        self._ending: set[object] = set()
        self._no_longer_busy = asyncio.Event()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Wait for a connection's next request: what came before it is answered."""
        self._not_busy(server_conn)
        if server_conn in self._ending:
            return _Unread(request_conn)
        delegate = super().start_request(server_conn, request_conn)
        return _Noticed(delegate, functools.partial(self._begin, server_conn))

    def _begin(self, server_conn: object, version: str, headers: HTTPHeaders) -> None:
        self._busy.add(server_conn)
        if not _HOST.fullmatch(headers.get("Host", "")):
            raise HTTPInputError("invalid Host header")
        if _is_last(version, headers):
            self._ending.add(server_conn)

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""
        self._not_busy(server_conn)
        self._ending.discard(server_conn)
        super().on_close(server_conn)

    def _not_busy(self, server_conn: object) -> None:
        self._busy.discard(server_conn)
        if not self._busy:
            self._no_longer_busy.set()

    async def drain(self, grace: float) -> None:
        """Stop listening, let the requests in flight finish, close every connection.

        :arg grace: seconds that the requests in flight get.
        """
        await asyncio.sleep(LINGER)
        self.stop()
        await asyncio.sleep(LINGER)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._busy:
                    self._no_longer_busy.clear()
                    await self._no_longer_busy.wait()
        if self._busy:
            log.warning("%d requests were not finished in %g s", len(self._busy), grace)
        await self.close_all_connections()


def _is_last(version: str, headers: HTTPHeaders) -> bool:
    """Tell whether nothing may be read after a request (RFC 9112, 9.3 and 6.1)."""
    options = [option.strip(" \t") for option in headers.get("Connection", "").lower().split(",")]
    if version == "HTTP/1.0" and ("keep-alive" not in options or "Transfer-Encoding" in headers):
        return True
    return "close" in options


class _Noticed(HTTPMessageDelegate):
    """Passes a request on, and notices when its headers are here."""

    def __init__(
        self, delegate: HTTPMessageDelegate, notice: Callable[[str, HTTPHeaders], None]
    ) -> None:
        self._notice = notice
        self._headers_received = delegate.headers_received
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.finish = delegate.finish  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        self._notice(start_line.version, headers)
        return self._headers_received(start_line, headers)


class _Unread(HTTPMessageDelegate):
    """What follows a connection's last request; Tornado alone would count it."""

    def __init__(self, connection: HTTPConnection) -> None:
        assert isinstance(connection, HTTP1Connection)
        self._connection = connection

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        self._connection.close()


class Listening(socket.socket):
    """Listens, and rests while no connection can be had, where Tornado would spin and log."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        :raises BlockingIOError: when there is none.
        """
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.warning("accepting no connections for %g s: %s", REST, error.strerror)
            loop = IOLoop.current()
            loop.update_handler(self.fileno(), 0)
            loop.call_later(REST, self._go_on, loop)
            raise BlockingIOError from None

    def _go_on(self, loop: IOLoop) -> None:
        if self.fileno() != -1:  # it was not closed meanwhile
            loop.update_handler(self.fileno(), IOLoop.READ)
