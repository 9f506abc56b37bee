"""A balancer that hears late of a server's end, and never retries."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

from tests.support.streams import Service

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_FAILED = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


class Balancer(Service):
    """Listens on a port of 127.0.0.1 and gives each request to the next server that is ready.

    Use it as a context. It takes requests without content, as visits are.

    :arg ports: of the servers.
    :arg every: seconds between two looks at a server's ``/readyz``.
    :arg keep_alive: keep the connections to the servers, instead of opening one for each request.
    """

    def __init__(self, ports: Sequence[int], *, every: float, keep_alive: bool) -> None:
        super().__init__()
        self.ready: set[int] = set()
        """Ports of the servers that were ready when they were last asked."""
        self._every = every
        self._keep_alive = keep_alive
        self._turn = itertools.cycle(ports)
        self._idle: dict[int, list[Pair]] = {port: [] for port in ports}
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Any:
        super().__enter__()
        self._call(self._begin)
        return self

    # In its thread.

    def _begin(self) -> None:
        self._looks = [asyncio.create_task(self._look_after(port)) for port in self._idle]

    async def _end(self) -> None:
        await super()._end()
        for port in self._idle:
            self._forget(port)

    async def _look_after(self, port: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                is_ready = (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.close()
            except OSError:
                is_ready = False
            if is_ready:
                self.ready.add(port)
            else:
                self.ready.discard(port)
                self._forget(port)
            await asyncio.sleep(self._every)

    def _forget(self, port: int) -> None:
        idle, self._idle[port] = self._idle[port], []
        for _, writer in idle:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            answer = _FAILED
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                answer = await self._passed_on(head, writer)
            writer.write(answer)

    async def _stream(
        self, answer: bytes, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        """Pass on an answer without an end, until there is one: then the client is closed, too."""
        client.write(answer)
        while data := await reader.read(65536):
            client.write(data)
            await client.drain()
        client.close()
        raise ConnectionResetError

    async def _passed_on(self, head: bytes, client: asyncio.StreamWriter) -> bytes:
        if not self.ready:
            return _FAILED
        port = next(port for port in self._turn if port in self.ready)
        idle = self._idle[port]
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        try:
            begin, *fields = head.split(b"\r\n")
            fields = [field for field in fields if not field.lower().startswith(b"connection:")]
            wish = b"Connection: keep-alive" if self._keep_alive else b"Connection: close"
            writer.write(b"\r\n".join([begin, wish, *fields]))
            answer = await reader.readuntil(b"\r\n\r\n")
            lines = answer.lower().split(b"\r\n")
            lengths = [line[15:] for line in lines if line.startswith(b"content-length:")]
            if not lengths:
                await self._stream(answer, reader, client)
            answer += await reader.readexactly(int(lengths[0]))
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in lines or port not in self.ready:
            writer.close()
        else:
            idle.append((reader, writer))
        return answer.replace(b"Connection: close\r\n", b"")
