"""Giving memory back to the system, once many clients have gone."""

import asyncio
import ctypes
from collections.abc import Callable

#: Seconds between two looks at how many there are.
LOOK_EVERY = 1.0

#: Clients that have gone since the last time, and so are worth the milliseconds that it takes.
MANY = 32


async def give_memory_back(clients: Callable[[], int]) -> None:
    """Give back what is free when many clients have gone, until it is cancelled.

    What they had was all over the heap, of which the C library gives back the end alone: a crowd
    that was there for a second would be seen in the memory for good (malloc_trim(3)).

    :arg clients: how many there are.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    most = 0
    while trim is not None:
        await asyncio.sleep(LOOK_EVERY)
        now = clients()
        if most - now >= MANY:
            trim(0)
            most = now
        most = max(most, now)
