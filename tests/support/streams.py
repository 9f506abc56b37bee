"""Servers of streams that leave nothing behind: in the test's loop, or in a thread of their own."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tests.support.ports import held_port
from tests.support.waiting import PATIENCE

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


class Streams:
    """Serves connections as `asyncio.start_server` does, and ends all of them.

    asyncio's own leaves a connection open that is accepted as it closes, and one whose coroutine
    is cancelled before its first step. The collector finds them in a later test.

    :arg serve: is given each connection.
    :arg tls: what clients are spoken to with; in the clear when None.
    """

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._tls = tls
        self._listening: socket.socket | None = None
        self._tasks: dict[asyncio.Task[None], socket.socket] = {}

    @property
    def listening(self) -> bool:
        return self._listening is not None

    @property
    def sockets(self) -> list[socket.socket]:
        """The one that listens, first, and those of the connections."""
        return [*filter(None, [self._listening]), *self._tasks.values()]

    def listen(self, sock: socket.socket) -> None:
        """Listen on a socket that is bound, and own it."""
        sock.setblocking(False)
        sock.listen(1000)
        self._listening = sock
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def listen_at(self, host: str, port: int) -> None:
        """Listen on a port, which another socket may hold."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        self.listen(sock)

    def refuse(self) -> None:
        """Stop listening."""
        sock, self._listening = self._listening, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def end(self) -> None:
        """Stop listening, end what serves, and close every connection."""
        self.refuse()
        sockets = list(self._tasks.values())
        await cancel(self._tasks)
        for sock in sockets:  # of a task that never began
            sock.close()
        await asyncio.sleep(0)  # until those are told whose connection was closed

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._run(sock))
        self._tasks[task] = sock
        task.add_done_callback(lambda done: self._tasks.pop(done))

    async def _run(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
        except OSError:  # a handshake that failed, or a client that has gone
            sock.close()
            return
        try:
            await self._serve(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        finally:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                transport.abort()


class Service:
    """Serves a port of its own from a thread of its own; use it as a context.

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
        self._streams = Streams(self._serve, tls)
        self._port = held_port(*at)
        self.host = at[0]
        self.port: int = self._port.getsockname()[1]
        self._writers: set[asyncio.StreamWriter] = set()
        """What `cut` closes."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def __enter__(self) -> Any:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self._port.close()

    # What a test does to it, from its own thread.

    @property
    def listening(self) -> bool:
        return self._streams.listening

    def listen(self) -> None:
        self._call(self._streams.listen_at, self.host, self.port)

    def refuse(self) -> None:
        """Stop listening, and close every connection."""
        self._call(self._streams.refuse)
        self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """Close every connection, with a reset if asked to."""
        self._call(self._cut, reset)

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call something in the thread, and wait for it."""

        async def call() -> None:
            function(*arguments)

        self._run(call())

    # In its thread.

    def _cut(self, reset: bool) -> None:
        for writer in list(self._writers):
            with contextlib.suppress(AttributeError):  # asyncio's TLS, when it was closed twice
                raw = writer.get_extra_info("socket")
                if reset and raw.fileno() != -1:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    async def _end(self) -> None:
        await self._streams.end()
        await cancel(asyncio.all_tasks() - {asyncio.current_task()})  # type: ignore[arg-type]
