"""A TCP proxy that delays replies: ``python proxy.py PORT TARGET MILLISECONDS``.

It delays only the way back, by the whole round trip. A client that waits for replies cannot tell
the difference, and an event loop's timers are too coarse for half milliseconds.
"""

import asyncio
import sys


class _Pipe(asyncio.Protocol):
    """One end of a connection. It sends what it receives out at the other end, after a delay.

    :arg delay: in seconds.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []
        """The bytes that came before the other end was connected.

        Python 3.11.2 reads from a connection that was paused as it was made.
        """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        elif self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.other.write, data)
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.abort()


class _Front(_Pipe):
    """The client's end, which connects to the target."""

    def __init__(self, target: int, delay: float) -> None:
        super().__init__(0)
        self.target, self.back = target, _Pipe(delay)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self.back.other = self.transport
        self.other, _ = await loop.create_connection(lambda: self.back, "127.0.0.1", self.target)
        self.other.writelines(self.early)


async def main(port: int, target: int, milliseconds: int) -> None:
    """Forward connections from one port to another, with a delay.

    :arg port: where to listen.
    :arg target: where to connect.
    :arg milliseconds: how long to delay each reply.
    """
    loop = asyncio.get_running_loop()
    await loop.create_server(
        lambda: _Front(target, milliseconds / 1000), "127.0.0.1", port, backlog=4096
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
