"""A TCP proxy that does to a connection what a network, or the other end, may do."""

import asyncio
import contextlib
import ctypes
import itertools
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.ports import full_backlog
from tests.support.streams import Service

#: Where a connection is passed on to: a Unix socket, or a port of 127.0.0.1.
Target = Path | int

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

#: socket(7), without a name in Python, and a filter that keeps no byte of a packet
#: (https://docs.kernel.org/networking/filter.html).
SO_ATTACH_FILTER, SO_DETACH_FILTER, KEEP_NOTHING = 26, 27, struct.pack("HBBI", 6, 0, 0, 0)


class Line:
    """One direction. What is set takes effect from the next bytes on."""

    def __init__(self) -> None:
        self.heal()

    def heal(self) -> None:
        self.delay = 0.0  # seconds until bytes are passed on; they come late, but in order
        self.black_hole = False  # bytes are read, and lost
        # What becomes of the bytes; it may raise an OSError, which closes both ends.
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.late = 0.0  # seconds until bytes are passed on whose sender is cut off at once


class Proxy(Service):
    """Passes on what comes to a port of 127.0.0.1; use it as a context.

    :arg targets: each connection goes to the next of them that takes it, as a balancer does that
        tries again. They may be changed.
    :arg tls: what clients are spoken to with; in the clear when None.
    """

    def __init__(
        self, targets: Sequence[Target], tls: ssl.SSLContext | None = None, **options: Any
    ) -> None:
        super().__init__(tls, **options)
        self.to_target, self.to_client = Line(), Line()
        self.accepted = 0  # connections so far
        self.refused = 0  # how often a target did not take one
        self.targets = list(targets)
        self._turn = itertools.count()

    # What a test does to it, from its own thread.

    def heal(self) -> None:
        self.to_target.heal()
        self.to_client.heal()

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """Let no packet in, and tell nobody; after the context, on new connections alone."""
        self._call(self._lose)
        yield
        self._call(self._find)

    @contextlib.contextmanager
    def full_backlog(self) -> Iterator[None]:
        self.refuse()
        with full_backlog("127.0.0.1", self.port):
            yield
        self.listen()

    # In its thread.

    def _lose(self) -> None:
        program = ctypes.create_string_buffer(KEEP_NOTHING)
        steps = struct.pack("HL", 1, ctypes.addressof(program))
        for sock in (self._socket, *self._connections.values()):
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, steps)

    def _find(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if (target := await self._connect()) is None:
            return
        self._writers.add(target[1])
        try:
            await asyncio.gather(
                self._pass_on(reader, target[1], self.to_target, writer),
                self._pass_on(target[0], writer, self.to_client, target[1]),
            )
        finally:
            self._writers.discard(target[1])
            target[1].close()

    async def _connect(self) -> Pair | None:
        targets = self.targets
        turn = next(self._turn) % len(targets)
        for target in targets[turn:] + targets[:turn]:
            with contextlib.suppress(OSError):
                if isinstance(target, Path):
                    return await asyncio.open_unix_connection(str(target))
                return await asyncio.open_connection("127.0.0.1", target)
            self.refused += 1
        return None

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        line: Line,
        sender: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(65536):
            if line.late:
                sender.transport.abort()
                await asyncio.sleep(line.late)
            if line.delay:
                await asyncio.sleep(line.delay)
            if line.black_hole:
                continue
            writer.write(line.change(data))
            await writer.drain()
        if not line.black_hole:
            writer.close()
