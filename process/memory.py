"""Giving memory back to the system, once many clients have gone."""

import asyncio
import ctypes
from collections.abc import Callable

#: Seconds between two looks at how many have gone.
LOOK_EVERY = 1.0

#: Clients that have gone since the last time, and so are worth the milliseconds that it takes.
MANY = 32


async def give_memory_back(gone: Callable[[], int]) -> None:
    """Give back what is free whenever many clients have gone, until it is cancelled.

    What they had was all over the heap, of which the C library gives back the end alone: a crowd
    that was there for a second would be seen in the memory for good (malloc_trim(3)).

    :arg gone: how many have gone since the start.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    before = 0
    while trim is not None:
        await asyncio.sleep(LOOK_EVERY)
        if (now := gone()) - before >= MANY:
            trim(0)
            before = now
