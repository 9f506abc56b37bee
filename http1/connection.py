"""One client's HTTP/1.1 connection, for Tornado applications.

The connection reads a request when the request before it has its answer. It hands the request to
the application through the interfaces that Tornado publishes in `tornado.httputil`. It parses a
head when the head is complete, and the head says how long the body is. Only unread bytes carry
over from one request to the next.
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
from http1.turns import Turns


class Server(Protocol):
    """An `.HTTPServerConnectionDelegate` with what its connections share."""

    draining: asyncio.Event
    """When it is set, each connection ends with its next answer."""
    busy_poll: BusyPoll
    """Keeps the loop awake for a client that asks again at once."""
    first_look: FirstLook
    """Looks at each connection once, some seconds after the connection was made."""
    outbox: Outbox
    """Sends whole answers; when there are many, it sends those of all connections together."""
    turns: Turns
    """Begins the requests that clients have sent ahead, a few in each turn of the loop."""

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Return the delegate that takes a new request."""

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""


class ClientConnection(RequestReader):
    """Reads one request after the other, and writes the answers.

    When a connection closes, it drops every object that refers to it. So its memory is free at
    once, without the garbage collector.

    :arg server: takes each request; the connection tells it when it has closed.
    :arg limits: the client's limits.
    :arg context: any object; requests carry it as ``connection.context``.
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
            self.be_idle()  # anew after a TLS handshake

    def data_received(self, data: bytes) -> None:
        """Read a request, or keep the bytes until their turn comes."""
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
        """Still answer a client that has closed its side after its request (RFC 9112, 9.6).

        The client may also have gone altogether. So the connection tells the application, and
        still sends what the application writes. It sends the first bytes of the answer ahead: the
        system of a client that has gone answers with a reset, and `client_has_gone` becomes true.
        """
        self.half_closed = True
        self.outbox.flush()
        if self.closing or not self.held:
            return False
        is_open = self.open_transport.can_write_eof()  # false with TLS
        if self.exchange is not None and self.is_handed_over:
            if is_open:
                self.exchange.send_ahead()
            self.exchange.on_close()
        return is_open

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application and everybody who waits to send; drop all references."""
        super().connection_lost(exc)
        self.held = True
        self._drop_request()
        self._busy_poll.forget(self)
        self.input.clear()
        self.body = None
        self._server.on_close(self)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: no request, no part of a request, no answer.

        Of two idle connections, the one with the earlier `deadline` has been idle for longer. A
        connection that has sent nothing is idle from its start, also during its TLS handshake.
        """
        if self.held or self.exchange is not None or not self.input.is_empty:
            return False
        transport = self.transport
        if transport is None:
            return True
        return not transport.is_closing() and not transport.get_write_buffer_size()

    @property
    def is_new(self) -> bool:
        """Whether the client has sent nothing yet, at least nothing but its TLS handshake."""
        return not self.input.data and not self.closing

    @property
    def is_draining(self) -> bool:
        """Whether the connection ends with the answer to the present request."""
        return self._server.draining.is_set()

    def close_if_idle(self) -> None:
        """Close the connection, unless a request is under way, or a part of one has arrived."""
        is_under_way = self.exchange is not None or self.held or not self.input.is_empty
        if self.transport is not None and (self.closing or not (is_under_way or self.has_unread())):
            self.close_at_ease()

    def on_deadline(self) -> None:
        """Close an idle connection silently, any other one after 408 (RFC 9110, 15.5.9)."""
        if self.client_reads():
            return
        if self.closing or self.held or self.closed():
            self.close()
        elif self.body is None and self.input.is_empty:
            self.close_at_ease()
        else:
            part = "head" if self.body is None else "body"
            why = f"the {part} was not whole in {self.seconds:g} s"
            self.refuse(408, f"Timeout reading {part}", why)

    # Answering.

    def pause_writing(self) -> None:
        """Let the application wait until the client has read more; the client has a deadline."""
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
        """Go on to the next request: the application has answered this one.

        :arg is_last: whether the connection ends instead.
        """
        self.exchange = self.delegate = None
        if is_last or self._server.draining.is_set() or not self.is_handed_over:
            self.end()
        elif self.write_waiters is None:
            self._read_next()
        # Else `resume_writing` goes on, when the client has read the answer.

    def _read_next(self) -> None:
        self.expect_request()
        self.be_idle()
        self.held = self.input.at < len(self.input.data) or self.half_closed
        if self.held:  # other connections have their turn first
            self._server.turns.add(self.go_on)
        elif self._busy_poll.last is self:
            self._busy_poll.answered()
        else:
            self._busy_poll.last = self

    def start_request(self, head: Head) -> tuple[Exchange, HTTPMessageDelegate]:
        """Return a new exchange, and the application's delegate for it."""
        exchange = Exchange(self, head, self.limits.max_body_size, self.limits.parameters)
        return exchange, self._server.start_request(self, exchange)

    def refuse(self, status: int, what: str, why: object) -> None:
        """Answer with an error, without the application, and end.

        :arg status: the answer's status.
        :arg what: what has happened, for the log.
        :arg why: what was wrong, for the log and the client.
        """
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
        """Tell the application that nobody wants its answer any more."""
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
        """Send what the application has written, and close."""
        if self.closing or self.transport is None:
            return
        self.held = True
        # The server ignores a lone line end after a body (RFC 9112, 2.2).
        is_all_read = self.is_handed_over and self.input.unread in (b"", b"\r\n")
        self.input.clear()
        self.close_lingering(is_all_read)

    # Another protocol.

    def switched(self) -> None:
        """Wait until the application calls `detach`, but not for ever."""
        self.be_idle()

    def detach(self) -> IOStream:
        """Give the connection away, for a protocol other than HTTP.

        :return: the stream for that protocol.
        """
        client = self.open_transport
        client.pause_reading()
        self.exchange = self.delegate = None
        self.held = self.closing = True
        self.stop_looking()
        self._server.on_close(self)
        stream, self._relaying = relay.hand_over(client, self.input.unread)
        return stream
