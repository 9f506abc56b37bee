"""One client's HTTP/1.1 connection, for Tornado applications.

A request is read when the one before it has been answered, and handed to the application through
the interfaces that Tornado publishes in `tornado.httputil`. A head is parsed when it is whole, and
what follows belongs to the body as far as the head says: nothing carries over from one request to
the next but the bytes that are not read yet.
"""

import asyncio
import contextlib
import math
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from tornado import gen
from tornado.http1connection import (
    HTTP1ConnectionParameters,
    parse_int,
)
from tornado.httputil import (
    HTTPConnection,
    HTTPInputError,
    HTTPMessageDelegate,
)
from tornado.iostream import IOStream
from tornado.log import app_log, gen_log

from http1 import relay
from http1.body import Body, ChunkedBody, FixedBody
from http1.busy_poll import BusyPoll
from http1.exchange import Exchange, failed
from http1.first_look import FirstLook
from http1.head import Head, check_beginning, parse_head
from http1.outbox import SMALL, Outbox
from http1.tornado_internals import GzipMessageDelegate

#: Seconds of a lingering close: a client that still sends gets them to read its last answer.
#: Closed at once, TCP would take the answer back (RFC 9112, 9.6).
LINGERING_CLOSE = 1.0

#: Seconds in which an idle client may answer the close of TLS. Nothing is lost when it does not
#: (RFC 8446, 6.1), and most do not: they look at the connection when they need it again.
TLS_CLOSE = 0.1


@dataclass(frozen=True)
class Limits:
    """What a connection may take.

    :arg parameters: Tornado's own; their ``header_timeout`` is the seconds that a connection
        may be idle.
    :arg max_body_size: bytes.
    :arg header_timeout: seconds for a request's headers, from their first byte on; when None,
        they have to be there before the connection has been idle for too long.
    :arg write_timeout: seconds in which a client has to read some of what is sent, when more waits
        than the connection keeps for it; as long as it may be idle when None.
    :arg refusal_headers: headers of the answers that the server gives without the application.
    """

    parameters: HTTP1ConnectionParameters
    max_body_size: int
    header_timeout: float | None = None
    write_timeout: float | None = None
    refusal_headers: Mapping[str, str] = field(default_factory=dict)


class Server(Protocol):
    """An `.HTTPServerConnectionDelegate` that tells when it is about to end."""

    draining: asyncio.Event
    """From when it is set, each connection ends with the answer to its request."""
    busy_poll: BusyPoll
    """Is told of requests and answers, to wait awake for who asks again soon."""
    first_look: FirstLook
    """Looks at each connection once, some seconds after it was made."""
    outbox: Outbox
    """Sends whole answers, those of all connections together where they are many."""

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Take a request."""

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""


class Connection(asyncio.Protocol):
    """Reads one request after the other, and writes their answers.

    :arg server: is given each request, and told when the connection is closed.
    :arg limits: what the client may take.
    :arg context: whatever requests are to carry as ``connection.context``.
    :arg sock: the client's socket; the transport owns it.
    """

    def __init__(
        self, server: Server, limits: Limits, context: object, sock: socket.socket
    ) -> None:
        # The connection's own.
        self.context = context
        self.socket: Any = sock
        self._sock = sock  # also where that one becomes TLS
        self._limits = limits
        self._server = server
        self._busy_poll = server.busy_poll
        self._outbox = server.outbox
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._input = b""
        self._at = 0  # where the input goes on that is not parsed yet
        self._half_closed = False  # the client sends no more
        self._closing = False  # nothing more is read; the last answer is on its way

        # Its one timer, which closes it.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf  # that it ends at, or that the server's first look comes at
        self.deadline = self._loop.time() + (limits.parameters.header_timeout or 0.0)
        """When that is, on the loop's clock; 0 for never."""
        self._seconds = 0.0  # that the deadline was set to
        self._unsent = 0  # bytes, then

        # Flow control: an application that lets us wait, and a client that reads slowly.
        self._held = False
        self._reading_paused = False
        self._write_waiters: list[asyncio.Future[None]] | None = None
        self._writable: asyncio.Future[None] = self._loop.create_future()
        self._writable.set_result(None)

        self._expect_request()

    def _expect_request(self) -> None:
        # The request's own, in the order in which they come to be.
        self._step: Callable[[], bool] = self._read_head
        self._blank = 0  # bytes of empty lines before it
        self._is_late = False  # its head has begun to arrive, and has a deadline
        self._exchange: Exchange | None = None
        self._delegate: HTTPMessageDelegate | None = None
        self._body: Body | None = None
        self._is_handed_over = False

    # The client comes and goes.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        if self._closing:
            self.close()
            return
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self.socket = tls  # it has the client's certificate
        self._look_at = self._server.first_look.add(self)
        self._be_idle()

    def data_received(self, data: bytes) -> None:
        """Read a request, or keep what has arrived until it is its turn."""
        if self._closing:
            return
        if self._busy_poll.last is self:
            self._busy_poll.asked()
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

        It may as well have gone, so the application is told; what it then writes is sent. Which of
        the two it is, `client_has_gone` tells when the client has answered to what is sent ahead.
        """
        self._half_closed = True
        self._outbox.flush()
        if self._closing or not self._held:
            return False
        is_open = self._open_transport.can_write_eof()  # not so with TLS
        if self._exchange is not None and self._is_handed_over:
            if is_open:
                self._exchange.send_ahead()
            self._exchange.on_close()
        return is_open

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and whoever waits for something to be sent."""
        self._transport = None
        self._stop_timer()
        self._held = True
        for waiter in self._write_waiters or []:
            failed(waiter)
        self._write_waiters = None
        self._drop_request()
        self._server.on_close(self)

    def close(self) -> None:
        """Close the connection at once, whatever is under way."""
        self._outbox.flush()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._closing = True  # as soon as it is made

    def closed(self) -> bool:
        """Tell whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def client_has_gone(self) -> bool:
        """Whether nobody is there to read an answer, as the system knows it at this moment.

        The event loop may not have come to it, and does not look at a client that sends no more.
        """
        if not self.closed() and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()  # to ask takes the error away
        return self.closed()

    def close_if_idle(self) -> None:
        """Close the connection, unless a request is under way."""
        self._outbox.flush()
        if self._transport is None:
            return
        is_over_tls_and_idle = self.socket is not self._sock and self.is_idle
        if self._closing or (self._exchange is None and not self._held):
            self._transport.close()
        if is_over_tls_and_idle:
            self._set_deadline(TLS_CLOSE)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no request, no part of a next one, no answer.

        Then `deadline` tells since when, beside that of other idle connections. One that has sent
        nothing at all is idle from the start, its TLS handshake included.
        """
        if self._held or self._exchange is not None or self._at < len(self._input):
            return False
        transport = self._transport
        if transport is None:
            return True
        return not transport.is_closing() and not transport.get_write_buffer_size()

    def has_unread(self) -> bool:
        """Tell whether something has arrived that is not read yet: a request, as like as not."""
        try:
            self._sock.setblocking(False)  # the event loop may not have come to it
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing has, or the client is gone
            return False

    @property
    def is_draining(self) -> bool:
        """Whether the connection ends with the answer to the request that is under way."""
        return self._server.draining.is_set()

    @property
    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    # One timer a connection: a limit is moved far more often than it is met.

    def _set_deadline(self, seconds: float | None) -> None:
        if not seconds or self._transport is None:
            self.deadline = 0.0
            return
        self._seconds = seconds
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._loop.time() + seconds
        if self.deadline < self._look_at:
            self._stop_timer()
            self._look_at = self.deadline
            self._timer = self._loop.call_at(self.deadline, self.look)

    def _be_idle(self) -> None:
        self._set_deadline(self._limits.parameters.header_timeout)

    def _be_read(self) -> None:
        limits = self._limits
        self._set_deadline(limits.write_timeout or limits.parameters.header_timeout)

    def look(self) -> None:
        """Close if the deadline has come, else set a timer for it."""
        self._timer, self._look_at = None, math.inf
        if not self.deadline:
            return
        if self.deadline - self._loop.time() > 0.001:
            self._look_at = self.deadline
            self._timer = self._loop.call_at(self.deadline, self.look)
        elif self._open_transport.get_write_buffer_size() < self._unsent:
            self._set_deadline(self._seconds)  # the client reads, if slowly
        else:
            if self._body is not None and not self._closing:
                gen_log.info("Timeout reading body from %s", self.context)
            self.close()

    def _stop_timer(self) -> None:
        self._server.first_look.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Reading: a step does one thing with what has arrived, tells whether there may be more to
    # do, and names the next one. They stand in the order of a request.

    def _read(self, waited_for: "asyncio.Future[None] | None" = None) -> None:
        try:
            if waited_for is not None:
                waited_for.result()
            while not self._held and self._step():
                pass
        except HTTPInputError as error:
            self._refuse("400 Bad Request", "Malformed HTTP message", error)
        except (Exception, asyncio.CancelledError):
            app_log.error("Uncaught exception", exc_info=True)
            self._closing = self._held = True
            self.close()
        if self._closing or self._transport is None:
            return
        if self._reading_paused and (not self._held or self._at == len(self._input)):
            self._reading_paused = False
            self._transport.resume_reading()
        if self._half_closed and not self._held:
            self._close_lingering()

    def _read_head(self) -> bool:
        if self._at == len(self._input):
            return False
        if self._input.startswith(b"\r\n", self._at):  # is ignored (RFC 9112, 2.2)
            self._at += 2
            self._blank += 2
            return self._fits(self._blank)
        found = self._input.find(b"\r\n\r\n", self._at)
        end = found + 4 if found >= 0 else len(self._input)
        if not self._fits(self._blank + end - self._at):
            return False
        head = self._input[self._at : end]
        if found < 0:
            check_beginning(head)
            self._be_late()
            return False
        self._at = end
        self._begin(parse_head(head))
        return True

    def _fits(self, size: int) -> bool:
        """Tell whether a head is not too large; if it is, refuse it."""
        most = self._limits.parameters.max_header_size
        if size > most:
            why = f"headers of more than {most} bytes"
            self._refuse("431 Request Header Fields Too Large", "Unsatisfiable read", why)
        return size <= most

    def _be_late(self) -> None:
        if not self._is_late and self._limits.header_timeout:
            self._is_late = True
            self._set_deadline(self._limits.header_timeout)

    def _begin(self, head: Head) -> None:
        """Hand the head to the application."""
        self._step = self._begin_body if head.has_body else self._hand_over
        self._set_deadline(None)
        parameters = self._limits.parameters
        self._exchange = Exchange(
            self,
            head,
            max_body_size=self._limits.max_body_size,
            body_timeout=parameters.body_timeout,
            no_keep_alive=parameters.no_keep_alive,
        )
        self._delegate = self._server.start_request(self, self._exchange)
        if parameters.decompress:
            self._delegate = GzipMessageDelegate(
                self._delegate, parameters.chunk_size, self._limits.max_body_size
            )
        self._wait_for(self._delegate.headers_received(head.line, self._exchange.headers))

    def _begin_body(self) -> bool:
        """Expect the body, within the limits that the application may have set."""
        assert self._exchange is not None
        headers, most = self._exchange.headers, self._exchange.max_body_size
        if "Content-Length" in headers:
            length = parse_int(headers["Content-Length"])
            if length > most:
                raise HTTPInputError("Content-Length too long")
            self._body = FixedBody(length)
        else:
            self._body = ChunkedBody(most, self._limits.parameters.max_header_size)
        if self._at == len(self._input) and not self._body.is_whole:
            self._exchange.send_continue()
        self._set_deadline(self._exchange.body_timeout)
        self._step = self._read_body
        return True

    def _read_body(self) -> bool:
        assert self._body is not None
        assert self._delegate is not None
        begun = self._at
        part, self._at = self._body.read(self._input, self._at, self._limits.parameters.chunk_size)
        if self._body.is_whole:
            self._step = self._hand_over
        if part:
            self._wait_for(self._delegate.data_received(part))
        return self._body.is_whole or self._at > begun

    def _hand_over(self) -> bool:
        """Tell the application that it has the whole request; its answer is waited for."""
        assert self._delegate is not None
        if self._body is not None:
            self._body = None
            self._set_deadline(None)
        self._is_handed_over = self._held = True
        try:
            self._delegate.finish()
        except BaseException:
            self._is_handed_over = False
            raise
        return False

    def _wait_for(self, awaitable: Awaitable[None] | None) -> None:
        if awaitable is not None:
            self._held = True
            gen.convert_yielded(awaitable).add_done_callback(self._go_on)

    def _go_on(self, waited_for: "asyncio.Future[None] | None" = None) -> None:
        if self._transport is not None and not self._closing:
            self._held = False
            self._read(waited_for)

    # Answering.

    def write(self, data: bytes) -> "asyncio.Future[None]":
        """Send bytes.

        :return: done when more may be sent.
        """
        if self._transport is None or self._transport.is_closing():
            return failed(self._loop.create_future())
        self._outbox.flush()
        self._transport.write(data)
        if self._write_waiters is None:
            return self._writable
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._write_waiters.append(waiter)
        return waiter

    def write_whole(self, answer: bytes) -> "asyncio.Future[None]":
        """Send a whole answer, perhaps at the end of this turn of the loop."""
        transport = self._transport
        if (
            transport is None
            or len(answer) > SMALL
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return self.write(answer)
        self._outbox.send(transport, answer)
        return self._writable

    def pause_writing(self) -> None:
        """Let the application wait for the client, which has to read some of it in time."""
        self._write_waiters = []
        if self._is_handed_over:
            self._be_read()

    def resume_writing(self) -> None:
        """Let the application go on."""
        waiters, self._write_waiters = self._write_waiters or [], None
        if self._is_handed_over and not self._closing:
            self._set_deadline(None)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._closing and not self.closed():
            self._set_deadline(LINGERING_CLOSE)
        elif self._is_handed_over and self._exchange is None and not self._closing:
            self.answered(is_last=False)

    def answered(self, is_last: bool) -> None:
        """Go on to the next request, now that the application has answered this one.

        :arg is_last: whether nothing more may be read.
        """
        self._exchange = self._delegate = None
        if is_last or self._server.draining.is_set() or not self._is_handed_over:
            self._close_lingering()
        elif self._write_waiters is None:
            self._read_next()
        # Else when the client has read it.

    def _read_next(self) -> None:
        self._expect_request()
        self._be_idle()
        self._held = self._at < len(self._input) or self._half_closed
        if self._held:  # other connections first
            self._loop.call_soon(self._go_on)
        elif self._busy_poll.last is self:
            self._busy_poll.answered()
        else:
            self._busy_poll.last = self

    def _refuse(self, status: str, what: str, why: object) -> None:
        gen_log.info("%s from %s: %s", what, self.context, why)
        if self._exchange is None or not self._exchange.has_begun:
            headers = "".join(
                f"{name}: {value}\r\n" for name, value in self._limits.refusal_headers.items()
            )
            self.write(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode("latin1"))
        self._drop_request()
        self._close_lingering()

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

    def _close_lingering(self) -> None:
        """Send what is written, and close."""
        if self._closing or self._transport is None:
            return
        self._outbox.flush()
        self._closing = self._held = True
        # A lone line end after a body is ignored (RFC 9112, 2.2).
        is_read = self._is_handed_over and self._input[self._at :] in (b"", b"\r\n")
        self._input, self._at = b"", 0
        self._be_read()
        if is_read or self._half_closed or not self._transport.can_write_eof():
            self._transport.close()
            return
        if self._reading_paused:
            self._transport.resume_reading()
        with contextlib.suppress(OSError):  # the client has gone, of which reading tells
            self._transport.write_eof()
        self._transport.set_write_buffer_limits(0)  # to be told when all is sent
        if self._write_waiters is None:
            self._set_deadline(LINGERING_CLOSE)

    # Another protocol.

    def switched(self) -> None:
        """Wait for being detached, but not for ever."""
        self._be_idle()

    def detach(self) -> IOStream:
        """Give the connection away, to speak another protocol than HTTP on it."""
        client = self._open_transport
        client.pause_reading()
        self._exchange = self._delegate = None
        self._held = self._closing = True
        self._stop_timer()
        self._server.on_close(self)
        stream, self._relaying = relay.hand_over(client, self._input[self._at :])
        return stream
