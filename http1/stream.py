"""A client's stream of bytes: how the server sends on it, how fast, and how it closes it."""

import asyncio
import contextlib
import math
import socket
from typing import Any, cast

from tornado.iostream import StreamClosedError

from http1.acceptor import MAX_UNREAD
from http1.deadline import Deadline
from http1.first_look import FirstLook
from http1.outbox import SMALL, Outbox

#: Seconds of a lingering close: a client that still sends has this time to read its last answer.
#: If the server closed at once, TCP would reset the connection, and the client might lose the
#: answer (RFC 9112, 9.6).
LINGERING_CLOSE = 1.0

#: Seconds that an idle client has to answer the close of TLS. Nothing is lost if the client does
#: not answer (RFC 8446, 6.1). Most clients do not answer: they notice the close only when they need
#: the connection.
TLS_CLOSE = 0.1

#: Unsent bytes that a client's buffer may have before the application has to wait.
MAX_UNSENT = 16 * 1024


class ClientStream(Deadline, asyncio.Protocol):
    """Sends to a client and closes, as Tornado's `.IOStream` does for applications.

    :arg outbox: sends whole answers; when there are many, it sends those of all clients together.
    :arg first_look: see `Deadline`.
    :arg sock: the client's socket; the transport owns it.
    :arg read_timeout: seconds in which a client must read some of the unsent bytes.
    """

    def __init__(
        self,
        outbox: Outbox,
        first_look: FirstLook,
        sock: socket.socket,
        read_timeout: float,
    ) -> None:
        super().__init__(first_look)
        self.socket: Any = sock
        """The client's socket; with TLS, the TLS object, which knows the client's certificate."""
        self._sock = sock  # the plain socket, also with TLS
        self.outbox = outbox
        self.read_timeout = read_timeout
        self.transport: asyncio.Transport | None = None
        self.half_closed = False
        """Whether the client has closed its side, so that it sends no more."""
        self.closing = False
        """Whether the server reads nothing more, and only sends the last answer."""
        self.reading_paused = False
        self.seconds = 0.0
        """Seconds that the client has until it must make progress."""
        self._unsent = 0  # unsent bytes when these seconds began
        self.write_waiters: list[asyncio.Future[None]] | None = None

    # The client comes and goes.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless `close` was called before."""
        self.transport = cast(asyncio.Transport, transport)
        if self.closing:
            self.close()
            return
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self.socket = tls
            limit: Any = transport  # with TLS it has the method, which its type leaves out
            limit.set_read_buffer_limits(MAX_UNREAD)
        self.transport.set_write_buffer_limits(MAX_UNSENT)
        self.begin_looking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let all waiting writes fail, and drop all references."""
        self.transport = None
        self.socket = self._sock
        self.stop_looking()
        for waiter in self.write_waiters or []:
            failed(waiter)
        self.write_waiters = None

    def close(self) -> None:
        """Close the connection at once, whatever is under way."""
        self.outbox.flush()
        if self.transport is not None:
            self.transport.abort()
        else:
            self.closing = True  # `connection_made` closes it

    def closed(self) -> bool:
        """Tell whether nothing can be sent any more."""
        return self.transport is None or self.transport.is_closing()

    @property
    def client_has_gone(self) -> bool:
        """Whether nobody can read an answer any more.

        If the event loop reads from the client, the event loop knows. Otherwise the system knows.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        if not self.half_closed and not self.reading_paused:
            return False
        if self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()  # SO_ERROR is cleared now, so the loop will not see it
        return self.closed()

    def has_unread(self) -> bool:
        """Tell whether unread bytes have arrived, probably a request."""
        try:
            self._sock.setblocking(False)  # the event loop may not have done it yet
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing has arrived, or the client has gone
            return False

    @property
    def open_transport(self) -> asyncio.Transport:
        """The transport. The connection must be made and not lost."""
        assert self.transport is not None
        return self.transport

    # Sending.

    def write(self, data: bytes) -> "asyncio.Future[None]":
        """Send bytes.

        :return: done when more may be sent.
        """
        if self.transport is None or self.transport.is_closing():
            return failed(self.loop.create_future())
        self.outbox.flush()
        self.transport.write(data)
        if self.write_waiters is None:
            return self.outbox.taken
        waiter: asyncio.Future[None] = self.loop.create_future()
        self.write_waiters.append(waiter)
        return waiter

    def write_whole(self, answer: bytes) -> "asyncio.Future[None]":
        """Send a whole answer, now or at the end of this turn of the loop.

        :return: done when more may be sent.
        """
        transport = self.transport
        if (
            transport is None
            or len(answer) > SMALL
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return self.write(answer)
        self.outbox.send(transport, answer)
        return self.outbox.taken

    def pause_writing(self) -> None:
        """Let the application wait until the client has read more."""
        self.write_waiters = []

    def resume_writing(self) -> None:
        """Let the application go on."""
        waiters, self.write_waiters = self.write_waiters or [], None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self.closing and not self.closed():
            self.expect_progress(LINGERING_CLOSE)

    # The client's time.

    def expect_progress(self, seconds: float | None) -> None:
        """Set the deadline. When it comes, `client_reads` may move it.

        :arg seconds: from now; None for no deadline.
        """
        self.set_deadline(seconds)
        self.seconds = seconds or 0.0
        transport = self.transport
        self._unsent = transport.get_write_buffer_size() if transport is not None else 0

    @property
    def waits_since(self) -> float:
        """Since when the server waits for the client, on the loop's clock; infinity for never."""
        return self.deadline - self.seconds if self.deadline else math.inf

    def client_reads(self) -> bool:
        """Tell whether the client has read some bytes; if so, give it the same time again."""
        is_read = self.open_transport.get_write_buffer_size() < self._unsent
        if is_read:
            self.expect_progress(self.seconds)
        return is_read

    # Ending.

    def close_at_ease(self) -> None:
        """Send the written bytes, then close; over TLS, announce the close (RFC 9112, 9.8)."""
        transport = self.open_transport
        self.outbox.flush()
        is_sent = not transport.get_write_buffer_size()
        _close_once(transport)
        if is_sent and self.socket is not self._sock:
            self.expect_progress(TLS_CLOSE)

    def close_lingering(self, is_all_read: bool) -> None:
        """Send the written bytes, then close, so that the client can read them (RFC 9112, 9.6).

        :arg is_all_read: whether the server has read all, and expects nothing more.
        """
        transport = self.open_transport
        self.outbox.flush()
        self.closing = True
        self.expect_progress(self.read_timeout)
        if is_all_read or self.half_closed or not transport.can_write_eof():
            _close_once(transport)
            return
        if self.reading_paused:
            transport.resume_reading()
        with contextlib.suppress(OSError):  # the client has gone; reading will notice it
            transport.write_eof()
        transport.set_write_buffer_limits(0)  # so `resume_writing` is called when all is sent
        if self.write_waiters is None:
            self.expect_progress(LINGERING_CLOSE)


def _close_once(transport: asyncio.Transport) -> None:
    """Close a transport. At a second close, asyncio's TLS would lose its hold of the connection."""
    if not transport.is_closing():
        transport.close()


def failed(future: "asyncio.Future[None]") -> "asyncio.Future[None]":
    """Let a future fail, without a complaint if nobody waits for it, and return it."""
    if not future.done():
        future.set_exception(StreamClosedError())
        future.exception()
    return future
