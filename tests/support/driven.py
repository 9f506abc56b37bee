"""A server under load while something is done to it, and the audit of what the visitors saw."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from audit.load import Load, Visit
from audit.report import Report
from tests.support.waiting import wait_until

#: What a busy machine may add to a deadline, as the contract has it.
BUSY = 0.2


class Driven:
    """A load that runs beside the test.

    :arg url: of the page.
    :arg rate: visits a second.
    """

    def __init__(self, url: str, *, rate: float = 300, concurrency: int = 32) -> None:
        self.load = Load(
            url, duration=3600, concurrency=concurrency, rate=rate, timeout=30, keep_alive=True
        )

    @property
    def visits(self) -> list[Visit]:
        return self.load.visits

    @property
    def now(self) -> float:
        return self.load.now

    def counted_since(self, moment: float) -> list[Visit]:
        """Return the visits that began after a moment and were counted."""
        return [one for one in self.visits if one.at > moment and one.number is not None]

    def wait_counted(self, since: float, seconds: float = 2.0 + BUSY) -> float:
        """Wait until visits count, and return how long after a moment they did."""
        wait_until(lambda: self.counted_since(since), seconds + 5)
        after = min(visit.end for visit in self.counted_since(since)) - since
        assert after < seconds, f"no visit counted for {after:.2f} s"
        return after

    def report(self) -> Report:
        return Report(self.visits, self.now)


@contextlib.contextmanager
def driven(url: str, *, rate: float = 300, concurrency: int = 32) -> Iterator[Driven]:
    """Drive a server until the end of the context, once its visits count."""
    one = Driven(url, rate=rate, concurrency=concurrency)
    thread = threading.Thread(target=lambda: asyncio.run(one.load.run()), name="load")
    thread.start()
    try:
        wait_until(lambda: len(one.visits) >= 20)
        yield one
    finally:
        one.load.stop()
        thread.join(60)
    assert not thread.is_alive(), "visits are still under way"
