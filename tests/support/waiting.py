"""Waiting: for a condition, with a limit, and for what must come in time on a busy machine too."""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

#: What a busy machine may add to a deadline, as the contract has it.
BUSY = 0.2

#: Seconds after which a condition will not come true. It is for failures, so no machine is as slow.
PATIENCE = 40.0

#: Seconds of a step in which `within` takes the time.
STEP = 0.02


def wait_until(
    condition: Callable[[], Result | None], seconds: float = PATIENCE, *, pause: float = 0.01
) -> Result:
    """Wait for a condition, and return what it is then; fail when it does not come true in time.

    :arg pause: seconds between two looks; more where one costs much.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(pause)
    return found


async def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


async def within(seconds: float, awaited: Awaitable[Result], busy: float = BUSY) -> Result:
    """Return what is awaited; fail when it takes longer, and what a busy machine may add.

    The time is taken in steps of the event loop that also does what is awaited, and of a thread, as
    names are looked up in one. When the machine lets neither run for a while, that is a single
    step, however long.
    """
    task = asyncio.ensure_future(awaited)
    try:
        for _ in range(math.ceil((seconds + busy) / STEP)):
            if (await asyncio.wait([task], timeout=STEP))[0]:
                return await task
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
        raise AssertionError(f"it took longer than {seconds} s, and {busy} s")
    finally:
        task.cancel()
