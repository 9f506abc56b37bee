"""Reads requests step by step, one after the other, and hands each to the application."""

import asyncio
import socket
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tornado import gen
from tornado.http1connection import HTTP1ConnectionParameters, parse_int
from tornado.httputil import HTTPInputError, HTTPMessageDelegate
from tornado.log import app_log

from http1.body import Body, ChunkedBody, FixedBody
from http1.exchange import Exchange
from http1.first_look import FirstLook
from http1.head import Head, parse_head
from http1.input import Input, TooLarge
from http1.outbox import Outbox
from http1.refusal import Form
from http1.stream import ClientStream
from http1.tornado_internals import GzipMessageDelegate


@dataclass(frozen=True)
class Limits:
    """The limits of a connection.

    :arg parameters: Tornado's own parameters, for all that is not here.
    :arg max_body_size: bytes of a request's body.
    :arg idle_timeout: seconds that a connection may be idle.
    :arg header_timeout: seconds for a request's headers, from their first byte on, and for a TLS
        handshake.
    :arg write_timeout: seconds in which a client must read some of the unsent bytes when its buffer
        of them is full.
    :arg refusal: writes the answers that the server gives without the application. None: these
        answers are bare status lines.
    """

    parameters: HTTP1ConnectionParameters
    max_body_size: int
    idle_timeout: float
    header_timeout: float
    write_timeout: float
    refusal: Form | None = None


class RequestReader(ClientStream):
    """Reads one request after the other.

    :arg limits: the client's limits.

    `ClientStream` describes the other arguments.
    """

    def __init__(
        self, limits: Limits, outbox: Outbox, first_look: FirstLook, sock: socket.socket
    ) -> None:
        super().__init__(outbox, first_look, sock, limits.write_timeout)
        self.seconds = limits.idle_timeout
        self.deadline = self.loop.time() + self.seconds  # a TLS handshake is idle, too
        self.limits = limits
        self.input = Input(limits.parameters.max_header_size)
        self.held = False  # reading waits for the application
        self.expect_request()

    # What a subclass does with a request, and with a bad one.

    @abstractmethod
    def start_request(self, head: Head) -> tuple[Exchange, HTTPMessageDelegate]:
        """Return a new exchange, and the application's delegate for it."""

    @abstractmethod
    def refuse(self, status: int, what: str, why: object) -> None:
        """Answer with an error, without the application, and end."""

    @abstractmethod
    def end(self) -> None:
        """Send what the application has written, and close."""

    def expect_request(self) -> None:
        """Reset the state that belongs to one request."""
        self._step: Callable[[RequestReader], bool] = RequestReader._read_head
        self._is_late = False  # its head has begun to arrive, and has a deadline
        self.exchange: Exchange | None = None
        self.delegate: HTTPMessageDelegate | None = None
        self.body: Body | None = None
        self.is_handed_over = False

    def be_idle(self) -> None:
        """Wait for a request, for as long as a connection may be idle."""
        self.expect_progress(self.limits.idle_timeout)

    # Reading. A step does one thing with the bytes that have arrived, sets the next step, and
    # returns whether the next step may have something to do. The steps stand in a request's order.

    def read_on(self, waited_for: "asyncio.Future[None] | None" = None) -> None:
        """Take as many steps as the bytes that have arrived allow.

        :arg waited_for: the application's future, which is done now; None for none.
        """
        try:
            if waited_for is not None:
                waited_for.result()
            while not self.held and self._step(self):
                pass
        except TooLarge as error:
            self.refuse(431, "Unsatisfiable read", error)
        except HTTPInputError as error:
            self.refuse(400, "Malformed HTTP message", error)
        except (Exception, asyncio.CancelledError):
            app_log.error("Uncaught exception", exc_info=True)
            self.closing = self.held = True
            self.close()
        if self.closing or self.transport is None:
            return
        self.pace_reading()
        if self.half_closed and not self.held:
            self.end()

    def pace_reading(self) -> None:
        """Stop reading from the client while earlier bytes wait for their turn."""
        must_wait = self.held and self.input.at < len(self.input.data)
        if must_wait != self.reading_paused and self.transport is not None:
            self.reading_paused = must_wait
            if must_wait:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _read_head(self) -> bool:
        head = self.input.read_head()
        if head is not None:
            self._begin(parse_head(head))
            return True
        if not self._is_late and not self.input.is_empty:
            self._is_late = True
            self.expect_progress(self.limits.header_timeout)
        return False

    def _begin(self, head: Head) -> None:
        """Hand the head to the application."""
        self._step = RequestReader._begin_body if head.has_body else RequestReader._hand_over
        self.deadline = 0.0
        self.exchange, self.delegate = self.start_request(head)
        parameters = self.limits.parameters
        if parameters.decompress:
            self.delegate = GzipMessageDelegate(
                self.delegate, parameters.chunk_size, self.limits.max_body_size
            )
        self._wait_for(self.delegate.headers_received(head.line, self.exchange.headers))

    def _begin_body(self) -> bool:
        """Expect the body, within the limits that the application may have set."""
        assert self.exchange is not None
        headers, most = self.exchange.headers, self.exchange.max_body_size
        if "Content-Length" in headers:
            length = parse_int(headers["Content-Length"])
            if length > most:
                raise HTTPInputError(f"Content-Length too long: a body has at most {most} bytes")
            self.body = FixedBody(length)
        else:
            self.body = ChunkedBody(most, self.limits.parameters.max_header_size)
        if self.input.is_empty and not self.body.is_whole:
            self.exchange.send_continue()
        self.expect_progress(self.exchange.body_timeout)
        self._step = RequestReader._read_body
        return True

    def _read_body(self) -> bool:
        body, begun = self.body, self.input.at
        assert body is not None
        assert self.delegate is not None
        part, end = body.read(self.input.data, begun, self.limits.parameters.chunk_size)
        self.input.at = end
        if body.is_whole:
            self._step = RequestReader._hand_over
        if part:
            self._wait_for(self.delegate.data_received(part))
        return body.is_whole or end > begun

    def _hand_over(self) -> bool:
        """Tell the application that it has the whole request, and wait for its answer."""
        assert self.delegate is not None
        if self.body is not None:
            self.body = None
            self.set_deadline(None)
        self.is_handed_over = self.held = True
        try:
            self.delegate.finish()
        except BaseException:
            self.is_handed_over = False
            raise
        return False

    def _wait_for(self, awaitable: Awaitable[None] | None) -> None:
        if awaitable is not None:
            self.held = True
            gen.convert_yielded(awaitable).add_done_callback(self.go_on)

    def go_on(self, waited_for: "asyncio.Future[None] | None" = None) -> None:
        """Read on: the wait is over.

        :arg waited_for: see `read_on`.
        """
        if self.transport is not None and not self.closing:
            self.held = False
            self.read_on(waited_for)
