"""The server: it accepts connections, keeps account of them, and drains.

It takes the options and has the methods of `tornado.httpserver.HTTPServer`. Beyond Tornado's, it
drains, gives a request's headers a deadline of their own, and accepts for sibling processes.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tornado.log import gen_log
from tornado.netutil import ssl_options_to_context

from http1.connection import LINGERING_CLOSE, Connection, Limits
from http1.tornado_internals import RequestContext, ServerHooks

#: Seconds that listening goes on, and then that idle connections stay open: what a client or a
#: balancer sends before it has heard of the stop is read and answered.
DRAIN_PAUSE = 0.1

#: Seconds between two looks at the sockets of siblings, and connections that are accepted at each.
SIBLINGS_EVERY = 0.1
MAX_PER_LOOK = 128

#: Bytes of a body that Tornado takes when it is given no limit.
MAX_BODY_SIZE = 100 * 1024 * 1024

log = logging.getLogger("http1")


class HTTPServer(ServerHooks):
    """Serves a Tornado application, as `tornado.httpserver.HTTPServer` does.

    :arg header_timeout: seconds for a request's headers, from their first byte on.
    :arg refusal_headers: headers of the answers that the server gives without the application.

    The other arguments are Tornado's.
    """

    def initialize(
        self,
        *args: Any,
        header_timeout: float | None = None,
        refusal_headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the arguments; Tornado's way of constructing."""
        super().initialize(*args, **kwargs)
        size = self.conn_params.max_body_size
        self._limits = Limits(
            self.conn_params,
            max_body_size=self.max_buffer_size or MAX_BODY_SIZE if size is None else size,
            header_timeout=header_timeout,
            refusal_headers=refusal_headers or {},
        )
        self._tls: dict[str, Any] = {}
        if self.ssl_options is not None:
            self._tls = {
                "ssl": ssl_options_to_context(self.ssl_options, server_side=True),
                "ssl_handshake_timeout": self.conn_params.header_timeout or None,
                "ssl_shutdown_timeout": LINGERING_CLOSE,
            }
        self.is_draining = False
        self._opening: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()
        self._none_open = asyncio.Event()

    def handle_connection(self, connection: socket.socket, address: Any) -> None:
        """Take a connection that was accepted."""
        task = asyncio.get_running_loop().create_task(self._open_connection(connection, address))
        self._opening.add(task)
        task.add_done_callback(functools.partial(self._on_opened, connection))

    def _on_opened(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled():  # perhaps before it began
            sock.close()

    async def _open_connection(self, sock: socket.socket, address: Any) -> None:
        context = RequestContext(
            SimpleNamespace(socket=sock),  # type: ignore[arg-type]  # all that it asks of a stream
            address,
            self.protocol or ("https" if self._tls else "http"),
            self.trusted_downstream,
        )
        connection = Connection(self, self._limits, context, sock)
        self._open.add(connection)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, sock, **self._tls
            )
        except BaseException as error:
            self.on_close(connection)
            sock.close()
            if isinstance(error, ssl.SSLError):
                gen_log.warning("SSL Error on %s: %s", address, error)
            elif not isinstance(error, OSError):  # the client has gone
                raise

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""
        self._open.discard(server_conn)
        if not self._open:
            self._none_open.set()

    async def accept_for_siblings(self, sockets: Sequence[socket.socket]) -> None:
        """Accept what other processes on the same port leave waiting, until it is cancelled.

        A process that hangs keeps its share of the connections in the queue of its own socket.

        :arg sockets: theirs, listening; closed in the end.
        """
        try:
            while sockets:
                await asyncio.sleep(SIBLINGS_EVERY)
                for listening in sockets:
                    self._accept(listening, MAX_PER_LOOK)
        finally:
            for listening in sockets:
                listening.close()

    def stop(self) -> None:
        """Stop listening. Clients that are in the queue are let in: closing would cut them off."""
        for listening in self.listening_sockets:
            self._accept(listening, socket.SOMAXCONN)
        super().stop()

    def _accept(self, listening: socket.socket, most: int) -> None:
        with contextlib.suppress(OSError):  # no more, or no more descriptors
            for _ in range(most):
                self.handle_connection(*socket.socket.accept(listening))

    async def close_all_connections(self) -> None:
        """Close every connection at once, and wait until they are closed."""
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        for connection in list(self._open):
            connection.close()
        await asyncio.gather(*opening, return_exceptions=True)
        await self._wait_until_none_is_open()

    async def drain(self, grace: float, delay: float = 0.0) -> None:
        """Stop listening, let the requests in flight finish, close every connection.

        :arg grace: seconds that the requests in flight get, from when listening stops.
        :arg delay: seconds that listening goes on, each connection ending with its next answer,
            while balancers learn that they are to send no more.
        """
        self.is_draining = True
        await asyncio.sleep(max(delay, DRAIN_PAUSE))
        self.stop()
        await asyncio.sleep(DRAIN_PAUSE)
        for task in self._opening:  # a client that does not go on with its TLS handshake
            task.cancel()
        for connection in list(self._open):
            connection.close_if_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._wait_until_none_is_open()
        if self._open:
            log.warning("%d requests were not finished in %g s", len(self._open), grace)
        await self.close_all_connections()

    async def _wait_until_none_is_open(self) -> None:
        while self._open:
            self._none_open.clear()
            await self._none_open.wait()
