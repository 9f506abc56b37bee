"""The server: it accepts connections, keeps a list of them, and drains.

It has the options and the methods of `tornado.httpserver.HTTPServer`. Unlike Tornado's server, it
drains, has a deadline for a request's headers, makes room for new connections, and accepts
connections for sibling processes.
"""

import asyncio
import contextlib
import functools
import heapq
import itertools
import logging
import math
import socket
import ssl
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tornado.log import app_log, gen_log
from tornado.netutil import ssl_options_to_context

from http1.acceptor import MAX_AT_ONCE, Acceptor
from http1.busy_poll import BusyPoll
from http1.connection import ClientConnection
from http1.eager import EagerTask
from http1.first_look import FirstLook
from http1.forwarded import Network, TrustedProxies
from http1.outbox import Outbox
from http1.reading import Limits
from http1.refusal import Form
from http1.tornado_internals import RequestContext, ServerHooks
from http1.turns import Turns

#: Seconds of each of two pauses when the server stops. In the first pause it goes on listening. In
#: the second pause it keeps idle connections open. So it answers clients that do not know of the
#: stop yet.
DRAIN_PAUSE = 0.1

#: Seconds by which the second pause is longer while a new connection waits for its first request,
#: and how often the server looks. A client that is far away needs this long to set up TLS.
FIRST_REQUEST, LOOKS = 0.2, 10

#: Seconds between two looks at the siblings' sockets.
SIBLINGS_EVERY = 0.1

#: To make room, the server closes one in `SHARE_CLOSED` connections together, but at most
#: `MAX_CLOSED`. The search for idle ones among 20,000 connections takes 5 ms, and each close takes
#: a little more.
SHARE_CLOSED = 16
MAX_CLOSED = 64

#: Seconds that an idle connection stays open in any case: a new client may be about to send a
#: request.
LEAST_IDLE = 0.1

#: Seconds that a connection stays open in any case in the middle of a request or of an answer.
LEAST_STALLED = 1.0

#: Seconds between two warnings of failed TLS handshakes: any client can make a handshake fail.
TLS_WARNINGS_EVERY = 60.0

#: Bytes of a body that Tornado accepts when nobody sets a limit.
MAX_BODY_SIZE = 100 * 1024 * 1024

log = logging.getLogger("http1")


class HTTPServer(ServerHooks):
    """Serves a Tornado application, as `tornado.httpserver.HTTPServer` does.

    :arg header_timeout: seconds for a request's headers, from their first byte on, and for the
        TLS handshake. None: the idle time.
    :arg write_timeout: seconds in which a client must read some of the unsent bytes. None: the
        idle time.
    :arg max_connections: how many connections may be open; None for any number. When there are so
        many, or no free descriptors, the server closes the connections that are idle for longest.
    :arg refusal: writes the answers that the server gives without the application; see `Limits`.
    :arg trusted_proxies: networks. The server believes ``X-Forwarded-For`` and
        ``X-Forwarded-Proto`` from proxies in these networks alone. It replaces Tornado's
        ``xheaders``, which believes everybody.
    :arg draining: when it is set, each connection ends with its next answer. `drain` sets it.
        None: the server makes its own event.

    The other arguments are Tornado's. While the server runs, ``ssl_options`` may be set to another
    `ssl.SSLContext`, as with Tornado's server. New connections then use this context.
    """

    def initialize(
        self,
        *args: Any,
        header_timeout: float | None = None,
        write_timeout: float | None = None,
        max_connections: int | None = None,
        refusal: Form | None = None,
        trusted_proxies: Sequence[Network] = (),
        draining: asyncio.Event | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the arguments. Tornado's servers have this in place of `__init__`."""
        super().initialize(*args, **kwargs)
        self._proxies = TrustedProxies(trusted_proxies) if trusted_proxies else None
        self.xheaders = self.xheaders or bool(trusted_proxies)
        size = self.conn_params.max_body_size
        idle_timeout = self.conn_params.header_timeout
        assert idle_timeout is not None  # Tornado's default is an hour
        timeouts = (idle_timeout, header_timeout or idle_timeout, write_timeout or idle_timeout)
        self._limits = Limits(
            self.conn_params,
            self.max_buffer_size or MAX_BODY_SIZE if size is None else size,
            *timeouts,
            refusal,
        )
        if self.ssl_options is not None:  # a dict names files; read them only once
            self.ssl_options = ssl_options_to_context(self.ssl_options, server_side=True)
        self._warn_of_tls_at = 0.0  # on the loop's clock
        self.draining = draining or asyncio.Event()
        self.busy_poll = BusyPoll()
        self.outbox = Outbox()
        self.turns = Turns()
        self.first_look = FirstLook(min(timeouts))
        self._acceptor = Acceptor(self)
        self.accept_from = self._acceptor.add
        self._max_connections = math.inf if max_connections is None else max_connections
        self._opening: dict[ClientConnection, asyncio.Task[None]] = {}
        self._open: set[ClientConnection] = set()
        self._none_open = asyncio.Event()
        self.closed = 0
        """How many connections were closed since the start."""

    def handle_connection(self, connection: socket.socket, address: Any) -> None:
        """Take an accepted connection.

        :arg address: the client's, as `socket.accept` gives it.
        """
        context = RequestContext(
            SimpleNamespace(socket=connection),
            address,
            self.protocol or ("http" if self.ssl_options is None else "https"),
            self.trusted_downstream,
            proxies=self._proxies,
        )
        protocol = ClientConnection(self, self._limits, context, connection)
        self._open.add(protocol)
        opening = functools.partial(self._open_connection, protocol, connection, address)
        if self.ssl_options is None:  # run it at once: a Task would cost more
            EagerTask(opening, _log_error)
            return
        task = asyncio.get_running_loop().create_task(opening())
        self._opening[protocol] = task
        task.add_done_callback(functools.partial(self._on_opened, protocol, connection))

    def _on_opened(
        self, connection: ClientConnection, sock: socket.socket, task: asyncio.Task[None]
    ) -> None:
        del self._opening[connection]
        if task.cancelled():  # perhaps before it began
            sock.close()
            self.on_close(connection)

    async def _open_connection(
        self, connection: ClientConnection, sock: socket.socket, address: object
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self.ssl_options is None:
                await loop.connect_accepted_socket(lambda: connection, sock)
            else:
                await self._open_tls(connection, sock)
        except BaseException as error:
            error.__traceback__ = None  # its frames, asyncio's, would keep the connection in memory
            connection.close()  # it may have been made in this turn, and has the socket
            self.on_close(connection)
            sock.close()
            if isinstance(error, ssl.SSLError):
                is_due = loop.time() >= self._warn_of_tls_at
                level = logging.WARNING if is_due else logging.DEBUG
                gen_log.log(level, "SSL Error on %s: %s", address, error)
                if is_due:
                    self._warn_of_tls_at = loop.time() + TLS_WARNINGS_EVERY
            elif not isinstance(error, OSError):  # the client has gone
                raise

    async def _open_tls(self, connection: ClientConnection, sock: socket.socket) -> None:
        loop, seconds = asyncio.get_running_loop(), self._limits.header_timeout
        until = loop.time() + seconds
        async with asyncio.timeout(seconds):
            await _first_byte(sock)
        context: Any = self.ssl_options
        await loop.connect_accepted_socket(
            lambda: connection,
            sock,
            ssl=context,
            ssl_handshake_timeout=max(until - loop.time(), 0.001),
            # A client answers the close after it has read all bytes sent before.
            ssl_shutdown_timeout=self._limits.write_timeout,
        )

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def is_full(self) -> bool:
        """Whether as many connections are open as allowed."""
        return len(self._open) >= self._max_connections

    def make_room(self) -> None:
        """Close some connections: those that have been idle for longest.

        If there are none, close those whose clients have been slow for longest: in sending the rest
        of a request, or in reading an answer. If there are none of these either, end some whose
        clients have sent requests ahead.
        """
        now = asyncio.get_running_loop().time()
        most = min(MAX_CLOSED, len(self._open) // SHARE_CLOSED + 1)
        for seconds, is_idle in ((LEAST_IDLE, True), (LEAST_STALLED, False)):
            found = [
                (one.waits_since, id(one), one)
                for one in self._open
                if one.waits_since <= now - seconds and one.is_idle is is_idle
            ]
            if self._close_some(found, most):
                return
        self._end_some_ahead(most)

    def _close_some(self, found: list[tuple[float, int, ClientConnection]], most: int) -> int:
        """Close the connections that have waited for longest.

        :arg found: for each connection, since when it waits (the loop's time), a number of its own,
            and the connection.
        :arg most: how many to close at most.
        :return: how many were closed.
        """
        heapq.heapify(found)
        closed = 0
        while found and closed < most:
            *_, connection = heapq.heappop(found)
            if connection.is_idle and connection.has_unread():
                continue
            closed += 1
            if opening := self._opening.get(connection):
                opening.cancel()
            else:
                connection.close()
        return closed

    def _end_some_ahead(self, most: int) -> None:
        """End connections between two requests, if the client has sent the second one ahead.

        The client repeats the second request on another connection (RFC 9112, 9.3.2).

        :arg most: how many to end at most.
        """
        if any(one.closing for one in self._open):  # these will make room soon
            return
        ahead = (one for one in self._open if one.held and one.exchange is None)
        for one in [*itertools.islice(ahead, most)]:
            one.end()

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""
        self.closed += server_conn in self._open
        self._open.discard(server_conn)
        self._acceptor.room_made()
        if not self._open:
            self._none_open.set()

    async def accept_for_siblings(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections that sibling processes on the same port do not accept.

        A process that hangs leaves its share of the connections in the queue of its own socket.
        This runs until it is cancelled.

        :arg sockets: the siblings' listening sockets. They are closed at the end.
        """
        try:
            while sockets:
                await asyncio.sleep(SIBLINGS_EVERY)
                for listening in sockets:
                    if not self.is_full and not self._acceptor.is_waiting:
                        self._accept(listening, MAX_AT_ONCE)
        finally:
            for listening in sockets:
                listening.close()

    def stop(self) -> None:
        """Accept all clients in the queue, which a close would cut off, and stop listening."""
        self._max_connections = math.inf  # only descriptors limit it now
        for listening in self.listening_sockets:
            self._accept(listening, socket.SOMAXCONN)
        super().stop()

    def _accept(self, listening: socket.socket, most: int) -> None:
        with contextlib.suppress(OSError):  # for example, a sibling has closed its socket
            self._acceptor.accept(listening, most)

    async def close_all_connections(self) -> None:
        """Close every connection at once, and wait until all are closed."""
        for task in self._opening.values():
            task.cancel()
        for connection in list(self._open):
            connection.close()
        await self._wait_until_none_is_open()

    async def drain(self, grace: float, delay: float = 0.0) -> None:
        """Stop listening, let the requests in flight finish, and close every connection.

        :arg grace: seconds that requests in flight have to finish, after listening has stopped.
        :arg delay: seconds that the server goes on listening first, while balancers learn to send
            it no more requests. Each connection ends with its next answer meanwhile.
        """
        self.draining.set()
        await asyncio.sleep(max(delay, DRAIN_PAUSE))
        self.stop()
        await asyncio.sleep(DRAIN_PAUSE)
        await self._wait_for_first_requests()
        for task in self._opening.values():  # clients that have not finished their TLS handshake
            task.cancel()
        for connection in list(self._open):
            connection.close_if_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._wait_until_none_is_open()
        if self._open:
            log.warning("%d requests were not finished in %g s", len(self._open), grace)
        await self.close_all_connections()

    async def _wait_for_first_requests(self) -> None:
        for _ in range(LOOKS):
            if not any(one.is_new for one in self._open):
                return
            await asyncio.sleep(FIRST_REQUEST / LOOKS)

    async def _wait_until_none_is_open(self) -> None:
        while self._open:
            self._none_open.clear()
            await self._none_open.wait()


def _log_error(error: BaseException | None) -> None:
    if error is not None:
        app_log.error("Uncaught exception", exc_info=error)


async def _first_byte(sock: socket.socket) -> None:
    """Wait until a client has sent something.

    Only then does TLS begin. It would take 50 kB for each client, even for one that sends nothing.

    :raises ConnectionAbortedError: when the client closes the connection.
    """
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    arrived = asyncio.Event()
    loop.add_reader(sock, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(sock)
    if not sock.recv(1, socket.MSG_PEEK):
        raise ConnectionAbortedError
