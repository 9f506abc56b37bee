"""Run the program with pauses that a test ends: ``STEPS=folder python stepwise.py``.

When the program stops, it pauses twice, so that clients hear of it: before it stops listening, and
before it closes what is idle. Here the first pause lasts until the folder holds a file ``1``, and
the second until it holds a file ``2``.
"""

import asyncio
import itertools
import os
import runpy
import sys
from pathlib import Path

SERVER = Path(__file__).parent.parent.parent / "server.py"
sys.argv[0] = str(SERVER)
sys.path[0] = str(SERVER.parent)

import http1.server  # noqa: E402

#: Not the length of any other.
PAUSE = 1e6

_sleep = asyncio.sleep
_steps = itertools.count(1)


async def sleep(delay: float) -> None:
    if delay != PAUSE:
        return await _sleep(delay)
    step = next(_steps)
    while not is_over(step):
        await _sleep(0.01)


def is_over(step: int) -> bool:
    return Path(os.environ["STEPS"], str(step)).exists()


http1.server.DRAIN_PAUSE = PAUSE
asyncio.sleep = sleep  # type: ignore[assignment]
runpy.run_path(str(SERVER), run_name="__main__")
