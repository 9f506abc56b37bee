"""Long work in pieces, so that pages get their turns."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

#: Seconds of work in one turn of the loop.
TURN = 0.0005

Item = TypeVar("Item")


async def in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield items; once a `TURN` is over, what else there is to do comes first."""
    end = time.perf_counter() + TURN
    for one in items:
        yield one
        if time.perf_counter() > end:
            await asyncio.sleep(0)
            end = time.perf_counter() + TURN
