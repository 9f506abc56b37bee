"""Long work in pieces, so that the event loop serves pages in between."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

#: Seconds of work in one turn of the loop.
TURN = 0.0005

Item = TypeVar("Item")


async def in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield items. After each `TURN`, let the event loop do its other work first."""
    end = time.perf_counter() + TURN
    for one in items:
        yield one
        if time.perf_counter() > end:
            await asyncio.sleep(0)
            end = time.perf_counter() + TURN
