"""A server of streams in a thread of its own, which leaves nothing behind."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

from tests.support.ports import held_port
from tests.support.waiting import PATIENCE


class Service:
    """Serves a port of its own; use it as a context.

    asyncio's own server leaves a connection open that is accepted as it closes, and one whose
    coroutine is cancelled before its first step. The collector finds them in a later test.

    :arg tls: what clients are spoken to with; in the clear when None.
    :arg at: the address, and the port if it is to be one of several at it.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, at: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name=type(self).__name__, daemon=True
        )
        self._tls = tls
        self._held = held_port(*at)
        self.host = at[0]
        self.port: int = self._held.getsockname()[1]
        self._socket: socket.socket | None = None
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        """What `cut` closes."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, which is closed then."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self._held.close()

    # What a test does to it, from its own thread.

    @property
    def listening(self) -> bool:
        return self._socket is not None

    def listen(self) -> None:
        self._call(self._listen)

    def refuse(self) -> None:
        """Stop listening, and close every connection."""
        self._call(self._refuse)
        self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """Close every connection, with a reset if asked to."""
        self._call(self._cut, reset)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        async def call() -> None:
            function(*arguments)

        asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    # In its thread.

    def _listen(self) -> None:
        self._socket = sock = held_port(self.host, self.port)
        sock.setblocking(False)
        sock.listen(1000)
        self.loop.add_reader(sock, self._accept, sock)

    def _refuse(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self.loop.remove_reader(sock)
            sock.close()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = listening.accept()
            sock.setblocking(False)
            task = self.loop.create_task(self._run(sock))
            self._connections[task] = sock
            task.add_done_callback(self._connections.pop)

    async def _run(self, sock: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self.loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._tls
            )
        except OSError:  # a handshake that failed, or a client that has gone
            sock.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self.loop)
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the other end has gone
        except asyncio.CancelledError:
            transport.abort()
            raise
        finally:
            self._writers.discard(writer)
            writer.close()

    def _cut(self, reset: bool) -> None:
        for writer in list(self._writers):
            with contextlib.suppress(AttributeError):  # asyncio's TLS, when it was closed twice
                raw = writer.get_extra_info("socket")
                if reset and raw.fileno() != -1:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    async def _end(self) -> None:
        sockets = list(self._connections.values())
        ending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for sock in sockets:  # of a task that never began
            sock.close()
        await asyncio.sleep(0)  # until those are told whose connection was closed
