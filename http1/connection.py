"""One client's HTTP/1.1 connection, for Tornado applications.

A request is read when the one before it has been answered, and handed to the application through
the interfaces that Tornado publishes in `tornado.httputil`. A head is parsed when it is whole, and
what follows belongs to the body as far as the head says: nothing carries over from one request to
the next but the bytes that are not read yet.
"""

import asyncio
import socket
from typing import Protocol

from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.iostream import IOStream
from tornado.log import app_log, gen_log

from http1 import relay
from http1.busy_poll import BusyPoll
from http1.exchange import Exchange
from http1.first_look import FirstLook
from http1.head import Head
from http1.outbox import Outbox
from http1.reading import Limits, RequestReader
from http1.refusal import accept_in, refusal


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


class ClientConnection(RequestReader):
    """Reads one request after the other, and has their answers written.

    Nothing of it outlives it: it keeps nothing that knows it once it is closed, so that what a
    client has sent is freed then, and not when the garbage collector comes.

    :arg server: is given each request, and told when the connection is closed.
    :arg limits: what the client may take.
    :arg context: whatever requests are to carry as ``connection.context``.
    :arg sock: the client's socket; the transport owns it.
    """

    def __init__(
        self, server: Server, limits: Limits, context: object, sock: socket.socket
    ) -> None:
        super().__init__(limits, server.outbox, server.first_look, sock)
        self.context = context
        self._server = server
        self._busy_poll = server.busy_poll

    # The client comes, sends and goes.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        super().connection_made(transport)
        if not self.closing:
            self.be_idle()

    def data_received(self, data: bytes) -> None:
        """Read a request, or keep what has arrived until it is its turn."""
        if self.closing:
            return
        if self._busy_poll.last is self:
            self._busy_poll.asked()
        self.input.add(data)
        if not self.held:
            self.read_on()
        else:
            self.pace_reading()

    def eof_received(self) -> bool:
        """Answer a client that has closed its side after its request (RFC 9112, 9.6).

        It may as well have gone, so the application is told; what it then writes is sent. Which of
        the two it is, `client_has_gone` tells when the client has answered to what is sent ahead.
        """
        self.half_closed = True
        self.outbox.flush()
        if self.closing or not self.held:
            return False
        is_open = self.open_transport.can_write_eof()  # not so with TLS
        if self.exchange is not None and self.is_handed_over:
            if is_open:
                self.exchange.send_ahead()
            self.exchange.on_close()
        return is_open

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and whoever waits for something to be sent; keep nothing."""
        super().connection_lost(exc)
        self.held = True
        self._drop_request()
        self._busy_poll.forget(self)
        self.input.clear()
        self.body = None
        self._server.on_close(self)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no request, no part of a next one, no answer.

        Then `deadline` tells since when, beside that of other idle connections. One that has sent
        nothing at all is idle from the start, its TLS handshake included.
        """
        if self.held or self.exchange is not None or not self.input.is_empty:
            return False
        transport = self.transport
        if transport is None:
            return True
        return not transport.is_closing() and not transport.get_write_buffer_size()

    @property
    def is_draining(self) -> bool:
        """Whether the connection ends with the answer to the request that is under way."""
        return self._server.draining.is_set()

    def close_if_idle(self) -> None:
        """Close the connection, unless a request is under way."""
        if self.transport is not None and (
            self.closing or (self.exchange is None and not self.held)
        ):
            self.close_at_ease()

    def on_deadline(self) -> None:
        """Close: an idle one without a word, else after 408 (RFC 9110, 15.5.9)."""
        if self.client_reads():
            return
        if self.closing or self.held or self.closed():
            self.close()
        elif self.body is not None:
            self.refuse(
                408, "Timeout reading body", f"the body was not whole in {self.seconds:g} s"
            )
        elif not self.input.is_empty:
            self.refuse(
                408, "Timeout reading head", f"the head was not whole in {self.seconds:g} s"
            )
        else:
            self.close_at_ease()

    # Answering.

    def pause_writing(self) -> None:
        """Let the application wait for the client, which has to read some of it in time."""
        super().pause_writing()
        if self.is_handed_over:
            self.expect_progress(self.read_timeout)

    def resume_writing(self) -> None:
        """Let the application go on."""
        if self.is_handed_over and not self.closing:
            self.set_deadline(None)
        super().resume_writing()
        if self.is_handed_over and self.exchange is None and not self.closing:
            self.answered(is_last=False)

    def answered(self, is_last: bool) -> None:
        """Go on to the next request, now that the application has answered this one.

        :arg is_last: whether nothing more may be read.
        """
        self.exchange = self.delegate = None
        if is_last or self._server.draining.is_set() or not self.is_handed_over:
            self.end()
        elif self.write_waiters is None:
            self._read_next()
        # Else when the client has read it.

    def _read_next(self) -> None:
        self.expect_request()
        self.be_idle()
        self.held = self.input.at < len(self.input.data) or self.half_closed
        if self.held:  # other connections first
            self.loop.call_soon(self.go_on)
        elif self._busy_poll.last is self:
            self._busy_poll.answered()
        else:
            self._busy_poll.last = self

    def start_request(self, head: Head) -> tuple[Exchange, HTTPMessageDelegate]:
        """Return a new request, and what the application takes it with."""
        parameters = self.limits.parameters
        exchange = Exchange(
            self,
            head,
            self.limits.max_body_size,
            parameters.body_timeout,
            parameters.no_keep_alive,
        )
        return exchange, self._server.start_request(self, exchange)

    def refuse(self, status: int, what: str, why: object) -> None:
        """Answer without the application, and end."""
        gen_log.info("%s from %s: %s", what, self.context, why)
        if self.exchange is None:
            accept = accept_in(self.input.data)
        else:
            accept = self.exchange.headers.get("Accept", "")
        if self.exchange is None or not self.exchange.has_begun:
            self.write(refusal(status, str(why), accept, self.limits.refusal))
        self._drop_request()
        self.end()

    def _drop_request(self) -> None:
        """Tell the application that its answer is not wanted any more."""
        exchange, self.exchange = self.exchange, None
        delegate, self.delegate = self.delegate, None
        if exchange is None or delegate is None:
            return
        try:
            if self.is_handed_over:
                exchange.on_close()
            else:
                delegate.on_connection_close()
        except Exception:
            app_log.error("Uncaught exception", exc_info=True)
        exchange.let_go()

    def end(self) -> None:
        """Send what is written, and close."""
        if self.closing or self.transport is None:
            return
        self.held = True
        # A lone line end after a body is ignored (RFC 9112, 2.2).
        is_all_read = self.is_handed_over and self.input.unread in (b"", b"\r\n")
        self.input.clear()
        self.close_lingering(is_all_read)

    # Another protocol.

    def switched(self) -> None:
        """Wait for being detached, but not for ever."""
        self.be_idle()

    def detach(self) -> IOStream:
        """Give the connection away, to speak another protocol than HTTP on it."""
        client = self.open_transport
        client.pause_reading()
        self.exchange = self.delegate = None
        self.held = self.closing = True
        self.stop_looking()
        self._server.on_close(self)
        stream, self._relaying = relay.hand_over(client, self.input.unread)
        return stream
