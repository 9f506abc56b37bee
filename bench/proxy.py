"""A TCP proxy that holds replies back: ``python proxy.py PORT TARGET MILLISECONDS``.

The whole round trip is spent on the way back. For who asks and waits that is the same as half
of it each way, and an event loop's timers cannot tell half milliseconds apart.
"""

import asyncio
import sys


class _Pipe(asyncio.Protocol):
    """One end of a connection: what it receives goes out at the other end, some time later."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []
        """What came before the other end was connected."""

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
    """Pass connections to a port on to another, with a round trip in between."""
    loop = asyncio.get_running_loop()
    await loop.create_server(
        lambda: _Front(target, milliseconds / 1000), "127.0.0.1", port, backlog=4096
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
