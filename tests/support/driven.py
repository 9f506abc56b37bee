"""A server under load while something is done to it, and the audit of what the visitors saw."""

import asyncio
import bisect
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from audit.load import Load, Visit
from audit.report import Report
from tests.support.processes import held_up
from tests.support.program import Program
from tests.support.waiting import BUSY as BUSY
from tests.support.waiting import STEP, wait_until

Result = TypeVar("Result")


class Driven(Load):
    """A load that runs beside the test.

    Its times are those of a machine with processors for all: from a visit's seconds are taken
    those in which the load could not run, and those in which the server could not.

    :arg server: the program, or the URL of the page.
    :arg options: of `Load`; by default 200 visits a second, on connections that are kept.
    """

    def __init__(self, server: Program | str, **options: Any) -> None:
        self._pid = None if isinstance(server, str) else server.process.pid
        url = server if isinstance(server, str) else server.url
        usual = {"rate": 200, "concurrency": 32, "timeout": 30, "keep_alive": True}
        super().__init__(url, **usual | options)
        self._moments: list[float] = []
        self._lost: list[float] = []  # seconds, up to each of these moments

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch())
        try:
            await super().run()
        finally:
            watch.cancel()

    def stop(self) -> None:
        """Begin no further visit; called from another thread."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(super().stop)

    async def _watch(self) -> None:
        """Note how long the machine has kept the load, and the server, from running."""
        late = 0.0
        while True:
            before = self.now
            await asyncio.sleep(STEP)
            late += max(self.now - before - STEP, 0)
            self._lost.append(late + (held_up(self._pid) if self._pid else 0))
            self._moments.append(self.now)

    def seconds(self, start: float, end: float) -> float:
        """Return how long it was from one moment to another, had the machine not been busy."""
        if not self._moments:
            return end - start
        first = max(bisect.bisect_right(self._moments, start) - 1, 0)
        last = min(bisect.bisect_left(self._moments, end), len(self._moments) - 1)
        return end - start - (self._lost[last] - self._lost[first])

    def latencies(self, visits: list[Visit] | None = None) -> list[float]:
        """Return how long the visits took, the slowest last; of all that were answered if none."""
        some = self.visits if visits is None else visits
        return sorted(self.seconds(one.at, one.end) for one in some if one.failure is None)

    def uncounted(self) -> list[Visit]:
        return [one for one in list(self.visits) if one.number is None and one.failure is None]

    def counted_since(self, moment: float) -> list[Visit]:
        return [one for one in list(self.visits) if one.at > moment and one.number is not None]

    def wait(self, seconds: float) -> None:
        """Wait, by the load's own clock."""
        until = self.now + seconds
        wait_until(lambda: self.now > until)

    def wait_counted(self, since: float, seconds: float = 2.0 + BUSY) -> float:
        wait_until(lambda: self.counted_since(since))
        after = self.seconds(since, min(visit.end for visit in self.counted_since(since)))
        assert after < seconds, f"no visit counted for {after:.2f} s"
        return after

    def report(self) -> Report:
        return Report(self.visits, self.now)


@contextlib.contextmanager
def driven(server: Program | str, **options: Any) -> Iterator[Driven]:
    """Drive a server until the end of the context, once its visits are answered.

    :arg options: of `Driven`.
    """
    one = Driven(server, **options)
    thread = threading.Thread(target=lambda: asyncio.run(one.run()), name="load")
    thread.start()
    try:
        wait_until(lambda: len(one.visits) >= 20)
        yield one
    finally:
        one.stop()
        thread.join(60)
    assert not thread.is_alive(), "visits are still under way"


def timed(server: Program, act: Callable[[], Result]) -> tuple[Result, float]:
    """Do something, and return how long it took, had the machine not been busy."""
    both = (server.process.pid, threading.get_native_id())
    before, begun = sum(map(held_up, both)), time.monotonic()
    result = act()
    seconds = time.monotonic() - begun
    return result, seconds - (sum(map(held_up, both)) - before)
