"""Giving memory back to the system after many clients have gone."""

import asyncio
import ctypes
from collections.abc import Callable

#: Seconds between two looks at how many clients have gone.
LOOK_EVERY = 1.0

#: How many clients must have gone since the last time. Giving memory back takes milliseconds.
MANY = 32


async def give_memory_back(gone: Callable[[], int]) -> None:
    """Give free memory back whenever many clients have gone, until the task is cancelled.

    The memory of the clients is all over the heap. By itself, the C library gives back only the end
    of the heap (malloc_trim(3)). So after one second with many clients, the process would keep
    their memory for ever.

    :arg gone: returns how many clients have gone since the start.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    before = 0
    while trim is not None:
        await asyncio.sleep(LOOK_EVERY)
        if (now := gone()) - before >= MANY:
            trim(0)
            before = now
