"""A client's stream of bytes: what is sent on it, how fast, and how it ends."""

import asyncio
import contextlib
import socket
from typing import Any, cast

from tornado.iostream import StreamClosedError

from http1.acceptor import MAX_UNREAD
from http1.deadline import Deadline
from http1.first_look import FirstLook
from http1.outbox import SMALL, Outbox

#: Seconds of a lingering close: a client that still sends gets them to read its last answer.
#: Closed at once, TCP would take the answer back (RFC 9112, 9.6).
LINGERING_CLOSE = 1.0

#: Seconds in which an idle client may answer the close of TLS. Nothing is lost when it does not
#: (RFC 8446, 6.1), and most do not: they look at the connection when they need it again.
TLS_CLOSE = 0.1

#: Bytes that are kept for a client that does not read, before the application has to wait.
MAX_UNSENT = 16 * 1024


class ClientStream(Deadline, asyncio.Protocol):
    """Sends to a client, and closes, as Tornado's `.IOStream` does for applications.

    :arg outbox: sends whole answers, those of all clients together where they are many.
    :arg first_look: see `Deadline`.
    :arg sock: the client's socket; the transport owns it.
    :arg read_timeout: seconds in which a client has to read some of what is sent; None for ever.
    """

    def __init__(
        self,
        outbox: Outbox,
        first_look: FirstLook,
        sock: socket.socket,
        read_timeout: float | None,
    ) -> None:
        super().__init__(first_look)
        self.socket: Any = sock
        """The client's: what its certificate is asked of, with TLS."""
        self._sock = sock  # also where that one becomes TLS
        self.outbox = outbox
        self.read_timeout = read_timeout
        self.transport: asyncio.Transport | None = None
        self.half_closed = False
        """Whether the client sends no more."""
        self.closing = False
        """Whether nothing more is read; the last answer is on its way."""
        self.reading_paused = False
        self.seconds = 0.0
        """That the client has for what it is waited for."""
        self._unsent = 0  # bytes, when these began
        self.write_waiters: list[asyncio.Future[None]] | None = None
        self._writable: asyncio.Future[None] = self.loop.create_future()
        self._writable.set_result(None)

    # The client comes and goes.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless it was closed before."""
        self.transport = cast(asyncio.Transport, transport)
        if self.closing:
            self.close()
            return
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self.socket = tls
            limit: Any = transport  # asyncio's has it without saying so
            limit.set_read_buffer_limits(MAX_UNREAD)
        self.transport.set_write_buffer_limits(MAX_UNSENT)
        self.begin_looking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for something to be sent, and keep nothing."""
        self.transport = None
        self.socket = self._sock
        self.stop_looking()
        for waiter in self.write_waiters or []:
            failed(waiter)
        self.write_waiters = None

    def close(self) -> None:
        """Close it at once, whatever is under way."""
        self.outbox.flush()
        if self.transport is not None:
            self.transport.abort()
        else:
            self.closing = True  # as soon as it is made

    def closed(self) -> bool:
        """Tell whether nothing can be sent any more."""
        return self.transport is None or self.transport.is_closing()

    @property
    def client_has_gone(self) -> bool:
        """Whether nobody is there to read an answer.

        The event loop tells, but for a client that it does not read from: there the system does.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        if not self.half_closed and not self.reading_paused:
            return False
        if self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()  # to ask takes the error away
        return self.closed()

    def has_unread(self) -> bool:
        """Tell whether something has arrived that is not read yet: a request, as like as not."""
        try:
            self._sock.setblocking(False)  # the event loop may not have come to it
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing has, or the client is gone
            return False

    @property
    def open_transport(self) -> asyncio.Transport:
        """The transport, of a connection that is made and not lost."""
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
            return self._writable
        waiter: asyncio.Future[None] = self.loop.create_future()
        self.write_waiters.append(waiter)
        return waiter

    def write_whole(self, answer: bytes) -> "asyncio.Future[None]":
        """Send a whole answer, perhaps at the end of this turn of the loop."""
        transport = self.transport
        if (
            transport is None
            or len(answer) > SMALL
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return self.write(answer)
        self.outbox.send(transport, answer)
        return self._writable

    def pause_writing(self) -> None:
        """Let the application wait for the client."""
        self.write_waiters = []

    def resume_writing(self) -> None:
        """Let the application go on."""
        waiters, self.write_waiters = self.write_waiters or [], None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self.closing and not self.closed():
            self.expect_progress(LINGERING_CLOSE)

    # What it has time for.

    def expect_progress(self, seconds: float | None) -> None:
        """Set the deadline, which is put off whenever the client has read some until then."""
        self.set_deadline(seconds)
        self.seconds = seconds or 0.0
        transport = self.transport
        self._unsent = transport.get_write_buffer_size() if transport is not None else 0

    @property
    def waits_since(self) -> float:
        """Since when the client is waited for, on the loop's clock, where it has a deadline."""
        return self.deadline - self.seconds

    def client_reads(self) -> bool:
        """Tell whether the client has read some, if slowly; then it has as long again."""
        is_read = self.open_transport.get_write_buffer_size() < self._unsent
        if is_read:
            self.expect_progress(self.seconds)
        return is_read

    # Ending.

    def close_at_ease(self) -> None:
        """Close it when what was written is sent; over TLS, say so (RFC 9112, 9.8)."""
        transport = self.open_transport
        self.outbox.flush()
        is_sent = not transport.get_write_buffer_size()
        transport.close()
        if is_sent and self.socket is not self._sock:
            self.expect_progress(TLS_CLOSE)

    def close_lingering(self, is_all_read: bool) -> None:
        """Send what is written, and close.

        :arg is_all_read: whether nothing may arrive any more that was not read.
        """
        transport = self.open_transport
        self.outbox.flush()
        self.closing = True
        self.expect_progress(self.read_timeout)
        if is_all_read or self.half_closed or not transport.can_write_eof():
            transport.close()
            return
        if self.reading_paused:
            transport.resume_reading()
        with contextlib.suppress(OSError):  # the client has gone, of which reading tells
            transport.write_eof()
        transport.set_write_buffer_limits(0)  # to be told when all is sent
        if self.write_waiters is None:
            self.expect_progress(LINGERING_CLOSE)


def failed(future: "asyncio.Future[None]") -> "asyncio.Future[None]":
    """Make a future fail that nobody may be waiting for, and return it."""
    if not future.done():
        future.set_exception(StreamClosedError())
        future.exception()
    return future
