"""Gives a client's connection away, for a protocol other than HTTP."""

import asyncio
import socket
from typing import Any

from tornado.iostream import IOStream


def hand_over(client: asyncio.Transport, read_ahead: bytes) -> tuple[IOStream, asyncio.Task[None]]:
    """Give a client's connection away, as a stream that Tornado's handlers expect.

    The stream is one end of a pair of sockets. A relay copies bytes between the other end and the
    client, so TLS goes on, and neither unsent bytes nor bytes that were read ahead are lost.

    :arg client: the client's transport; its reading is paused.
    :arg read_ahead: the bytes of the client that have already arrived.
    :return: the stream, and the task that connects it. Keep the task until it is done.
    """
    ours, theirs = socket.socketpair()
    return IOStream(theirs), asyncio.create_task(_connect(client, ours, read_ahead))


async def _connect(client: asyncio.Transport, ours: socket.socket, read_ahead: bytes) -> None:
    loop = asyncio.get_running_loop()
    pair: Any
    pair, _ = await loop.connect_accepted_socket(lambda: _Relay(client), ours)
    pair.write(read_ahead)
    client.set_protocol(_Relay(pair))
    if client.is_closing():
        pair.close()
    else:
        client.resume_reading()


class _Relay(asyncio.Protocol):
    """Forwards bytes from its own transport to another, as fast as the other transport takes them.

    :arg to: the other transport.
    """

    def __init__(self, to: asyncio.Transport) -> None:
        self._to = to
        self.data_received = to.write  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._to.close()

    def pause_writing(self) -> None:
        self._to.pause_reading()

    def resume_writing(self) -> None:
        if not self._to.is_closing():
            self._to.resume_reading()
