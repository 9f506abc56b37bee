"""One client's HTTP/1.1 connection, for Tornado applications.

The request line is read with Tornado's own grammar; llhttp (through httptools) finds where
headers and body end. A request is read when the one before it has been answered, and handed
to the application through the interfaces that Tornado publishes in `tornado.httputil`.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
from tornado import gen
from tornado.escape import native_str
from tornado.http1connection import (
    HTTP1ConnectionParameters,
    _GzipMessageDelegate,
    is_transfer_encoding_chunked,
    parse_int,
)
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPOutputError,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
    parse_request_start_line,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.log import app_log, gen_log

#: Seconds that a client which still sends gets to read its last answer; closed at once, TCP
#: would take the answer back (RFC 9112, 9.6).
FAREWELL = 1.0

#: Bytes that a chunk may have beside its data, on the average (RFC 9112, 7.1).
CHUNK_OVERHEAD = 64

#: What a request line may begin with (RFC 9112, 3): what cannot become one is not waited for.
_LINE_BEGINNING = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+( ([\x21-\x7e\x80-\xff]+( [HTP]{0,4}(/[0-9.]{0,3})?\r?)?)?)?"
)

#: uri-host and port (RFC 9110, 7.2; RFC 3986, 3.2.2). Tornado takes some that are none.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|([\w.~!$&'()*+,;=-]|%[0-9a-f]{2})*)(:[0-9]*)?", re.I | re.A)

_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]+)(.*)", re.I)


@dataclass(frozen=True)
class Limits:
    """What a connection may take.

    :arg parameters: Tornado's own; their ``header_timeout`` is the seconds that a connection
        may be idle.
    :arg max_body_size: bytes.
    :arg header_timeout: seconds for a request's headers, from their first byte on; when None,
        they have to be there before the connection has been idle for too long.
    :arg refusal: headers of the answers that the server gives without the application.
    """

    parameters: HTTP1ConnectionParameters
    max_body_size: int
    header_timeout: float | None = None
    refusal: Mapping[str, str] = field(default_factory=dict)


class Connection(asyncio.Protocol):
    """Reads one request after the other, and writes their answers.

    :arg server: is given each request, and told when the connection is closed.
    :arg limits: what the client may take.
    :arg context: whatever requests are to carry as ``connection.context``.
    :arg sock: the client's socket; the transport owns it.
    """

    def __init__(
        self,
        server: HTTPServerConnectionDelegate,
        limits: Limits,
        context: object,
        sock: socket.socket,
    ) -> None:
        # The connection's own.
        self.context = context
        self.socket: Any = sock
        self.limits = limits
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._input = b""
        self._at = 0  # where the input goes on that is not parsed yet
        self._half_closed = False  # the client sends no more
        self._leaving = False  # nothing more is read; the last answer is on its way
        self._draining = False

        # Its one timer, which closes it.
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0  # on the loop's clock; 0 for none

        # Flow control: an application that lets us wait, and a client that reads slowly.
        self._held = False
        self._reading_paused = False
        self._write_waiters: list[asyncio.Future[None]] | None = None

        self._expect_request()

    def _expect_request(self) -> None:
        # The request's own, in the order in which they come to be.
        self._is_late = False  # its headers have begun to arrive, and have a deadline
        self._start_line: RequestStartLine | None = None
        self._head_size = 0
        self._tail = b""  # of what was parsed: an end may begin with it
        self._fields: list[tuple[bytes, bytes]] = []
        self._has_headers = False
        self._exchange: Exchange | None = None
        self._delegate: HTTPMessageDelegate | None = None
        self._expects_body = False
        self._body_left: int | None = None  # None when it is chunked
        self._body = bytearray()  # of it, what the application has not had yet
        self._body_size = 0
        self._chunk_overhead = 0
        self._is_whole = False
        self._is_handed_over = False

    # The client comes and goes.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self.socket = tls  # it has the client's certificate
        self._be_idle()

    def data_received(self, data: bytes) -> None:
        """Read a request, or keep what has arrived until it is its turn."""
        if self._leaving:
            return
        if self._at < len(self._input):
            data = self._input[self._at :] + data
        self._input, self._at = data, 0
        if not self._held:
            self._read()
        elif not self._reading_paused:
            self._reading_paused = True
            self._open_transport.pause_reading()

    def eof_received(self) -> bool:
        """Answer a client that has closed its side after its request (RFC 9112, 9.6).

        It may as well have gone, so the application is told; what it then writes is sent.
        """
        self._half_closed = True
        if self._leaving or not self._held:
            return False
        if self._exchange is not None and self._is_handed_over:
            self._exchange.on_close()
        return self._open_transport.can_write_eof()  # not so with TLS

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and whoever waits for something to be sent."""
        self._transport = self._parser = None
        self._stop_timer()
        self._held = True
        for waiter in self._write_waiters or []:
            _fail(waiter)
        self._write_waiters = None
        self._drop_request()
        self._server.on_close(self)

    def close(self) -> None:
        """Close the connection at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def closed(self) -> bool:
        """Tell whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def drain(self) -> None:
        """Close the connection, once the request that is under way has been answered."""
        self._draining = True
        if self._transport is not None and (self._exchange is None or self._leaving):
            self._transport.close()

    @property
    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    # One timer a connection: a limit is moved far more often than it is met.

    def _limit(self, seconds: float | None) -> None:
        if not seconds:
            self._deadline = 0.0
            return
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._stop_timer()
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _be_idle(self) -> None:
        self._limit(self.limits.parameters.header_timeout)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._deadline:
            return
        if self._deadline - self._loop.time() > 0.001:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
            return
        if self._expects_body and not self._is_whole:
            gen_log.info("Timeout reading body from %s", self.context)
        self.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Reading: a step does one thing with what has arrived, in the order of a request.

    def _read(self, waited_for: "asyncio.Future[None] | None" = None) -> None:
        try:
            if waited_for is not None:
                waited_for.result()
            while not self._held and self._step():
                pass
        except (HTTPInputError, httptools.HttpParserError) as error:
            self._refuse("400 Bad Request", "Malformed HTTP message", error)
        except (Exception, asyncio.CancelledError):
            app_log.error("Uncaught exception", exc_info=True)
            self._leaving = self._held = True
            self.close()
        if self._leaving or self._transport is None:
            return
        if self._reading_paused and self._at == len(self._input):
            self._reading_paused = False
            self._open_transport.resume_reading()
        if self._half_closed and not self._held:
            self._leave()

    def _step(self) -> bool:
        """Do what can be done next; tell whether there may be more."""
        has_input = self._at < len(self._input)
        if self._start_line is None:
            return has_input and self._read_request_line()
        if not self._has_headers:
            return has_input and self._read_headers()
        if not self._expects_body:
            self._expect_body(has_input)
        elif self._body and (self._is_whole or not has_input or self._has_chunk):
            self._pass_on_body()
        elif self._is_whole:
            self._hand_over()
        elif has_input:
            self._read_body()
        else:
            return False
        return True

    def _read_request_line(self) -> bool:
        if self._input[self._at] in b"\r\n":
            # An empty line before it is ignored (RFC 9112, 2.2).
            if self._input.startswith(b"\r\n", self._at):
                self._at += 2
                return True
            if self._input[self._at :] != b"\r":
                raise HTTPInputError("Malformed HTTP request line")
            return self._wait_for_head(0)
        end = self._input.find(b"\r\n", self._at)
        line = self._input[self._at : end if end >= 0 else None]
        if end < 0:
            if not _LINE_BEGINNING.fullmatch(line):
                raise HTTPInputError("Malformed HTTP request line")
            return self._wait_for_head(len(line))
        self._start_line = parse_request_start_line(line.decode("latin1"))
        self._head_size = len(line)
        self._at = end
        # llhttp knows few methods, and each in its own way; the line is none of its business.
        version = b"1.0" if self._start_line.version == "HTTP/1.0" else b"1.1"
        self._parser.feed_data(b"POST / HTTP/" + version)
        return True

    def _read_headers(self) -> bool:
        end = self._end_of_part()
        if self._head_size + end - self._at > self.limits.parameters.max_header_size:
            return self._wait_for_head(end - self._at)
        self._head_size += end - self._at
        self._parse(end)
        if not self._has_headers:
            return self._wait_for_head(0)
        self._begin()
        return True

    def _wait_for_head(self, more: int) -> bool:
        if self._head_size + more > self.limits.parameters.max_header_size:
            why = f"headers of more than {self.limits.parameters.max_header_size} bytes"
            self._refuse("431 Request Header Fields Too Large", "Unsatisfiable read", why)
        elif not self._is_late and self.limits.header_timeout:
            self._is_late = True
            self._limit(self.limits.header_timeout)
        return False

    def _begin(self) -> None:
        """Hand the headers to the application."""
        assert self._start_line is not None
        headers = HTTPHeaders()
        for raw_name, raw_value in self._fields:
            name, value = raw_name.decode("latin1"), raw_value.strip(b" \t").decode("latin1")
            if name in headers:
                headers.add(name, value)
            else:
                headers[name] = value
        start_line = _in_origin_form(self._start_line, headers)
        if not _HOST.fullmatch(headers.get("Host", "")):
            raise HTTPInputError("Invalid Host header")
        is_transfer_encoding_chunked(headers)  # refuses every other one
        self._limit(None)
        self._exchange = Exchange(self, start_line, headers)
        self._delegate = self._server.start_request(self, self._exchange)
        if self.limits.parameters.decompress:
            self._delegate = _GzipMessageDelegate(
                self._delegate, self.limits.parameters.chunk_size, self.limits.max_body_size
            )
        self._wait_for(self._delegate.headers_received(start_line, headers))

    def _expect_body(self, has_begun: bool) -> None:
        self._expects_body = True
        if self._is_whole:
            return
        assert self._exchange is not None
        length = self._exchange.headers.get("Content-Length")
        if length is not None:
            self._body_left = parse_int(length)
            if self._body_left > self._exchange.max_body_size:
                raise HTTPInputError("Content-Length too long")
        if not has_begun:
            self._exchange.send_continue()
        self._limit(self._exchange.body_timeout)

    def _read_body(self) -> None:
        assert self._exchange is not None
        size = self.limits.parameters.chunk_size
        if self._body_left is not None:
            size = min(size, self._body_left, len(self._input) - self._at)
            self._body_left -= size
            self._parse(self._at + size)
            return
        size = min(size, self._end_of_part() - self._at)
        self._chunk_overhead += size
        self._parse(self._at + size)
        if self._body_size > self._exchange.max_body_size:
            raise HTTPInputError("chunked body too large")
        if self._chunk_overhead > self.limits.parameters.max_header_size:
            raise HTTPInputError("chunk sizes, extensions or trailers too large")

    @property
    def _has_chunk(self) -> bool:
        return len(self._body) >= self.limits.parameters.chunk_size

    def _pass_on_body(self) -> None:
        assert self._delegate is not None
        size = self.limits.parameters.chunk_size
        part = bytes(self._body[:size])
        del self._body[:size]
        if self._is_whole:
            self._limit(None)
        self._wait_for(self._delegate.data_received(part))

    def _hand_over(self) -> None:
        """Tell the application that it has the whole request; its answer is waited for."""
        assert self._delegate is not None
        self._is_handed_over = self._held = True
        try:
            self._delegate.finish()
        except BaseException:
            self._is_handed_over = False
            raise

    def _wait_for(self, awaitable: Awaitable[None] | None) -> None:
        if awaitable is not None:
            self._held = True
            gen.convert_yielded(awaitable).add_done_callback(self._go_on)

    def _go_on(self, waited_for: "asyncio.Future[None] | None" = None) -> None:
        if self._transport is not None and not self._leaving:
            self._held = False
            self._read(waited_for)

    # The parser: it is given no more than to the end of a message, and calls back.

    def _parse(self, end: int) -> None:
        piece = self._input[self._at : end]
        self._at, self._tail = end, piece[-3:]
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # Asked for and not wanted: what follows is HTTP (RFC 9110, 7.8).
            self._parser = httptools.HttpRequestParser(self)

    def _end_of_part(self) -> int:
        """Return where the next empty line ends, with which headers or chunks may end."""
        if self._tail:
            start = self._tail + self._input[self._at : self._at + 3]
            if (found := start.find(b"\r\n\r\n")) >= 0:
                return self._at + found + 4 - len(self._tail)
        found = self._input.find(b"\r\n\r\n", self._at)
        return found + 4 if found >= 0 else len(self._input)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer may be passed over (RFC 9112, 7.1.2)."""
        if not self._has_headers:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Note that the body follows."""
        self._has_headers = True

    def on_chunk_header(self) -> None:
        """Allow for the line with the chunk's size."""
        self._chunk_overhead -= CHUNK_OVERHEAD

    def on_body(self, body: bytes) -> None:
        """Keep some of the body."""
        self._body += body
        self._body_size += len(body)
        self._chunk_overhead -= len(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._is_whole = True

    # Answering.

    def write(self, data: bytes) -> "asyncio.Future[None]":
        """Send bytes.

        :return: done when more may be sent.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self.closed():
            return _fail(future)
        self._open_transport.write(data)
        if self._write_waiters is None:
            future.set_result(None)
        else:
            self._write_waiters.append(future)
        return future

    def pause_writing(self) -> None:
        """Let the application wait for the client."""
        self._write_waiters = []

    def resume_writing(self) -> None:
        """Let the application go on."""
        waiters, self._write_waiters = self._write_waiters or [], None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._is_handed_over and self._exchange is None and not self._leaving:
            self._read_next()

    def answered(self, is_last: bool) -> None:
        """Go on to the next request, now that the application has answered this one.

        :arg is_last: whether nothing more may be read.
        """
        self._exchange = self._delegate = None
        if is_last or self._draining or not self._is_handed_over:
            self._leave()
        elif self._write_waiters is None:
            self._read_next()
        # Else when the client has read it.

    def _read_next(self) -> None:
        self._expect_request()
        self._be_idle()
        self._held = self._at < len(self._input) or self._half_closed
        if self._held:  # other connections first
            self._loop.call_soon(self._go_on)

    def _refuse(self, status: str, what: str, why: object) -> None:
        gen_log.info("%s from %s: %s", what, self.context, why)
        if self._exchange is None or not self._exchange.has_begun:
            headers = "".join(f"{name}: {value}\r\n" for name, value in self.limits.refusal.items())
            self.write(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode("latin1"))
        self._drop_request()
        self._leave()

    def _drop_request(self) -> None:
        """Tell the application that its answer is not wanted any more."""
        exchange, self._exchange = self._exchange, None
        delegate, self._delegate = self._delegate, None
        if exchange is None or delegate is None:
            return
        try:
            if self._is_handed_over:
                exchange.on_close()
            else:
                delegate.on_connection_close()
        except Exception:
            app_log.error("Uncaught exception", exc_info=True)
        exchange.let_go()

    def _leave(self) -> None:
        """Send what is written, and close."""
        if self._leaving or self._transport is None:
            return
        self._leaving = self._held = True
        is_read = self._is_whole and self._at == len(self._input)
        self._input, self._at = b"", 0
        if is_read or self._half_closed or not self._transport.can_write_eof():
            self._transport.close()
            self._be_idle()
            return
        self._transport.write_eof()
        self._limit(FAREWELL)
        if self._reading_paused:
            self._transport.resume_reading()

    def detach(self) -> IOStream:
        """Give the connection away, to speak another protocol than HTTP on it.

        :return: one end of a pair of sockets, so that TLS, what is being sent and what was read
            ahead are as they should be; the client has the other.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._open_transport.pause_reading()
        self._exchange = self._delegate = None
        self._held = self._leaving = True
        self._stop_timer()
        self._server.on_close(self)
        self._relaying = self._loop.create_task(self._relay(ours))
        return IOStream(theirs)

    async def _relay(self, ours: socket.socket) -> None:
        client = self._open_transport
        pair, _ = await self._loop.connect_accepted_socket(lambda: _Relay(client), ours)
        pair.write(self._input[self._at :])
        client.set_protocol(_Relay(pair))
        if client.is_closing():
            pair.close()
        else:
            client.resume_reading()


class _Relay(asyncio.Protocol):
    """Sends what one transport receives on another, as fast as that one takes it."""

    def __init__(self, to: asyncio.Transport) -> None:
        self._to = to
        self.data_received = to.write  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._to.close()

    def pause_writing(self) -> None:
        self._to.pause_reading()

    def resume_writing(self) -> None:
        if not self._to.is_closing():
            self._to.resume_reading()


class Exchange(HTTPConnection):
    """One request and its answer, as a Tornado application sees them.

    :arg connection: on which it takes place.
    :arg start_line: the request's.
    :arg headers: the request's.
    """

    def __init__(
        self, connection: Connection, start_line: RequestStartLine, headers: HTTPHeaders
    ) -> None:
        limits = connection.limits
        self.context = connection.context
        self.headers = headers
        self.max_body_size = limits.max_body_size
        self.body_timeout = limits.parameters.body_timeout
        self.has_begun = False  # the answer has
        self._connection: Connection | None = connection
        self._method = start_line.method
        self._is_http_1_0 = start_line.version == "HTTP/1.0"
        self._is_last = limits.parameters.no_keep_alive or is_last(start_line.version, headers)
        self._switches = False  # to another protocol (RFC 9110, 15.2.2)
        self._is_chunked = False
        self._left: int | None = None  # bytes of the answer; None when it does not say
        self._close_callback: Callable[[], None] | None = None

    @property
    def stream(self) -> Connection:
        """What stands in for an `.IOStream`: ``write``, ``close``, ``closed``, ``socket``.

        :raises StreamClosedError: after the answer.
        """
        if self._connection is None:
            raise StreamClosedError
        return self._connection

    def set_max_body_size(self, max_body_size: int) -> None:
        """Replace the limit, in bytes, for this request."""
        self.max_body_size = max_body_size

    def set_body_timeout(self, timeout: float) -> None:
        """Replace the limit, in seconds, for this request."""
        self.body_timeout = timeout

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Set what is called when the client goes before it is answered."""
        self._close_callback = callback

    def on_close(self) -> None:
        """Call what was set for it, once."""
        callback, self._close_callback = self._close_callback, None
        if callback is not None:
            callback()

    def let_go(self) -> None:
        """Write nothing any more."""
        self._connection = self._close_callback = None

    def detach(self) -> IOStream:
        """Give the connection away; see `Connection.detach`."""
        stream = self.stream.detach()
        self.let_go()
        return stream

    def send_continue(self) -> None:
        """Ask for the body, if the client waits to be asked (RFC 9110, 10.1.1)."""
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
        if 100 <= code < 200 and code != 101:  # another one follows (RFC 9110, 15.2)
            return self._write(_head(code, reason, headers))
        self._frame(code, headers)
        data = _head(code, reason, headers)
        self.has_begun = True
        return self._write(data + self._framed(chunk) if chunk else data)

    def _frame(self, code: int, headers: HTTPHeaders) -> None:
        """Decide how the client finds the answer's end (RFC 9112, 6.3), and say so."""
        self._switches = code == 101
        has_body = self._method != "HEAD" and code not in (101, 204, 304)
        length = headers.get("Content-Length")
        self._is_chunked = has_body and length is None and not self._is_http_1_0
        if self._is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        ends_by_closing = has_body and length is None and self._is_http_1_0
        if ends_by_closing or "close" in _options(headers):
            self._is_last = True
        if self._is_last and not self._is_http_1_0:
            headers["Connection"] = "close"
        elif self._is_http_1_0 and not self._is_last:
            headers["Connection"] = "Keep-Alive"
        if not has_body:
            self._left = 0
        elif length is not None:
            self._left = parse_int(length)

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        """Write some of the answer's body.

        :return: done when more may be written.
        :raises HTTPOutputError: when it is more than ``Content-Length`` says.
        """
        self.has_begun = True
        return self._write(self._framed(chunk))

    def _framed(self, chunk: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                self._close()
                raise HTTPOutputError("Tried to write more data than Content-Length")
        if self._is_chunked and chunk:  # an empty one would be the end
            return b"%x\r\n%b\r\n" % (len(chunk), chunk)
        return chunk

    def _write(self, data: bytes) -> "asyncio.Future[None]":
        if self._connection is None:
            return _fail(asyncio.get_running_loop().create_future())
        return self._connection.write(data)

    def finish(self) -> None:
        """End the answer.

        :raises HTTPOutputError: when it is less than ``Content-Length`` says.
        """
        connection = self._connection
        if connection is None or self._switches:  # which waits for being detached
            return
        if self._left and not connection.closed():
            self._close()
            raise HTTPOutputError(f"Tried to write {self._left} bytes less than Content-Length")
        if self._is_chunked:
            self._write(b"0\r\n\r\n")
        self.let_go()
        connection.answered(self._is_last)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def is_last(version: str, headers: HTTPHeaders) -> bool:
    """Tell whether nothing may be read after a request (RFC 9112, 9.3 and 6.1)."""
    if version == "HTTP/1.0":
        return "keep-alive" not in _options(headers) or "Transfer-Encoding" in headers
    return "close" in _options(headers)


def _options(headers: HTTPHeaders) -> list[str]:
    if "Connection" not in headers:
        return []
    return [option.strip(" \t") for option in headers["Connection"].lower().split(",")]


def _in_origin_form(line: RequestStartLine, headers: HTTPHeaders) -> RequestStartLine:
    """Take the host out of the target, where it beats the header (RFC 9112, 3.2.2)."""
    if line.path.startswith("/") or not (target := _ABSOLUTE_FORM.fullmatch(line.path)):
        return line
    host, path = target.groups()
    hosts = len(headers.get_list("Host"))
    if hosts > 1 or (hosts == 0 and line.version != "HTTP/1.0"):
        return line  # Tornado refuses it
    headers["Host"] = host
    return line._replace(path=path if path.startswith("/") else f"/{path}")


def _head(code: int, reason: str, headers: HTTPHeaders) -> bytes:
    lines = [f"HTTP/1.1 {code} {reason}"]
    lines += [f"{native_str(name)}: {native_str(value)}" for name, value in headers.get_all()]
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) - 1:
        [bad, *_] = [line for line in lines if "\r" in line or "\n" in line]
        raise ValueError(f"Illegal characters (CR or LF) in header: {bad!r}")
    return head.encode("latin1") + b"\r\n\r\n"


def _fail(future: "asyncio.Future[None]") -> "asyncio.Future[None]":
    """Make a future fail that nobody may be waiting for."""
    if not future.done():
        future.set_exception(StreamClosedError())
        future.exception()
    return future
