"""Probing: one look after the other, of which a stuck one holds up no other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from counter.connection import Connection


async def find(probe: Callable[[], Awaitable[Connection]], every: float) -> Connection:
    """Return the first connection that a probe finds.

    :arg probe: opens a connection that counts, or raises; it ends at some time.
    :arg every: seconds between two probes. A stuck one may stay so, so the next is a fresh one.
    """
    found: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def look() -> None:
        with contextlib.suppress(Exception):
            connection = await probe()
            if found.done():
                connection.close()
            else:
                found.set_result(connection)

    probes: set[asyncio.Task[None]] = set()
    try:
        while not found.done():
            task = asyncio.create_task(look())
            probes.add(task)
            task.add_done_callback(probes.discard)
            await asyncio.wait([found], timeout=every)
        return found.result()
    finally:
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
