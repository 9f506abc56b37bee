"""One request and its answer, as a Tornado application sees them."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from tornado.http1connection import HTTP1ConnectionParameters, parse_int
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPOutputError,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError

from http1.head import VERSION, Head, connection_options, format_head
from http1.stream import failed


class Wire(Protocol):
    """The connection that an answer is written on."""

    context: object

    @property
    def is_draining(self) -> bool:
        """Whether the connection ends with this answer."""

    @property
    def client_has_gone(self) -> bool:
        """Whether nobody can read an answer any more."""

    def write(self, data: bytes) -> "asyncio.Future[None]":
        """Send bytes; the future is done when more may be sent."""

    def write_whole(self, answer: bytes) -> "asyncio.Future[None]":
        """Send a whole answer; the future is done when more may be sent."""

    def answered(self, is_last: bool) -> None:
        """Go on to the next request, or end if this one was the last."""

    def switched(self) -> None:
        """Wait until the application calls `detach`."""

    def detach(self) -> IOStream:
        """Give the connection away."""

    def close(self) -> None:
        """Close the connection at once."""

    def closed(self) -> bool:
        """Tell whether nothing can be sent any more."""


class Exchange(HTTPConnection):
    """One request and its answer.

    :arg wire: the connection.
    :arg head: the request's head.
    :arg max_body_size: bytes that the request's body may have.
    :arg parameters: Tornado's own parameters.
    """

    def __init__(
        self, wire: Wire, head: Head, max_body_size: int, parameters: HTTP1ConnectionParameters
    ) -> None:
        self.context = wire.context
        self.headers = head.headers()
        self.max_body_size = max_body_size
        self.body_timeout = parameters.body_timeout  # seconds for the whole body; None: no limit
        self.has_begun = False  # whether the answer has begun
        self._wire: Wire | None = wire
        self._method = head.line.method
        self._is_http_1_0 = head.line.version == "HTTP/1.0"
        self._is_last = parameters.no_keep_alive or head.is_last
        self._switches = False  # to another protocol (RFC 9110, 15.2.2)
        self._is_chunked = False
        self._left: int | None = None  # bytes of the answer to come; None when it has no length
        self._close_callback: Callable[[], None] | None = None
        self._sent_ahead = 0  # bytes of the answer's head that were sent

    @property
    def client_has_gone(self) -> bool:
        """Whether nobody can read the answer; see `RequestHandler.client_has_gone`."""
        return self._wire is None or self._wire.client_has_gone

    @property
    def stream(self) -> Wire:
        """The connection, in place of an `.IOStream`: ``write``, ``close``, ``closed``, ``socket``.

        :raises StreamClosedError: after the answer.
        """
        if self._wire is None:
            raise StreamClosedError
        return self._wire

    def set_max_body_size(self, max_body_size: int) -> None:
        """Replace the limit of the body's size, in bytes, for this request."""
        self.max_body_size = max_body_size

    def set_body_timeout(self, timeout: float) -> None:
        """Replace the limit of the body's time, in seconds, for this request."""
        self.body_timeout = timeout

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Set a function to call when the client goes before its answer."""
        self._close_callback = callback

    def on_close(self) -> None:
        """Call the function that `set_close_callback` has set, once."""
        callback, self._close_callback = self._close_callback, None
        if callback is not None:
            callback()

    def send_ahead(self) -> None:
        """Send the bytes that every answer begins with, to learn whether the client is there.

        When a client has closed its side, TCP does not tell whether the client still reads or has
        gone. The system of a client that has gone answers the next bytes with a reset.
        """
        if not self.has_begun and not self._sent_ahead:
            self._sent_ahead = len(VERSION)
            self._write(VERSION)

    def let_go(self) -> None:
        """Write nothing more, and forget the connection."""
        self._wire = self._close_callback = None

    def detach(self) -> IOStream:
        """Give the connection away, for a protocol other than HTTP.

        :return: the stream for that protocol.
        :raises StreamClosedError: after the answer.
        """
        stream = self.stream.detach()
        self.let_go()
        return stream

    def send_continue(self) -> None:
        """Ask for the body, if the client waits for that (RFC 9110, 10.1.1)."""
        expected = self.headers.get("Expect", "").lower() == "100-continue"
        if expected and not self._is_http_1_0 and not self.has_begun:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        """Write the answer's head, and perhaps the beginning of its body.

        :return: done when more may be written.
        :raises ValueError: when a header is malformed.
        """
        assert isinstance(start_line, ResponseStartLine)
        code, reason = start_line.code, start_line.reason
        if 100 <= code < 200 and code != 101:  # another answer follows (RFC 9110, 15.2)
            sent, self._sent_ahead = self._sent_ahead, 0
            return self._write(format_head(code, reason, headers)[sent:])
        self._frame(code, headers)
        data = format_head(code, reason, headers)[self._sent_ahead :]
        self.has_begun = True
        if chunk:
            data += self._framed(chunk)
        if self._left == 0 and not self._is_last and self._wire is not None:
            return self._wire.write_whole(data)
        return self._write(data)

    def answer(
        self, code: int, reason: str, headers: HTTPHeaders, body: bytes
    ) -> "asyncio.Future[None]":
        """Write a whole answer, and end it. The status must be one that has content.

        :arg body: the content; an answer to HEAD has only its length.
        :return: done when more may be written.
        :raises ValueError: when a header is malformed.
        """
        headers["Content-Length"] = str(len(body))
        self._say_whether_last(headers)
        data = format_head(code, reason, headers)[self._sent_ahead :]
        if self._method != "HEAD":
            data += body
        self.has_begun = True
        wire = self._wire
        if wire is None:
            return self._write(data)
        sent = wire.write(data) if self._is_last else wire.write_whole(data)
        self.let_go()
        wire.answered(self._is_last)
        return sent

    def _frame(self, code: int, headers: HTTPHeaders) -> None:
        """Decide how the client finds the answer's end (RFC 9112, 6.3), and set the headers."""
        self._switches = code == 101
        length = headers.get("Content-Length")
        if self._method == "HEAD" or code in (101, 204, 304):
            self._left = 0
        elif length is not None:
            self._left = parse_int(length)
        elif self._is_http_1_0:
            self._is_last = True
        else:
            self._is_chunked = True
            headers["Transfer-Encoding"] = "chunked"
        self._say_whether_last(headers)

    def _say_whether_last(self, headers: HTTPHeaders) -> None:
        if "close" in connection_options(headers):
            self._is_last = True
        if self._wire is not None and self._wire.is_draining and not self._switches:
            self._is_last = True
        if self._is_last and not self._is_http_1_0:
            headers["Connection"] = "close"
        elif self._is_http_1_0 and not self._is_last:
            headers["Connection"] = "Keep-Alive"

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        """Write some of the answer's body.

        :return: done when more may be written.
        :raises HTTPOutputError: when the body is longer than ``Content-Length`` says.
        """
        self.has_begun = True
        return self._write(self._framed(chunk))

    def _framed(self, chunk: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                if self._wire is not None:
                    self._wire.close()
                raise HTTPOutputError("Tried to write more data than Content-Length")
        if self._is_chunked and chunk:  # an empty chunk would end the body
            return b"%x\r\n%b\r\n" % (len(chunk), chunk)
        return chunk

    def _write(self, data: bytes) -> "asyncio.Future[None]":
        if self._wire is None:
            return failed(asyncio.get_running_loop().create_future())
        return self._wire.write(data)

    def finish(self) -> None:
        """End the answer.

        :raises HTTPOutputError: when the body is shorter than ``Content-Length`` says.
        """
        wire = self._wire
        if wire is None:
            return
        if self._switches:
            wire.switched()
            return
        if self._left and not wire.closed():
            wire.close()
            raise HTTPOutputError(f"Tried to write {self._left} bytes less than Content-Length")
        if self._is_chunked:
            self._write(b"0\r\n\r\n")
        self.let_go()
        wire.answered(self._is_last)
