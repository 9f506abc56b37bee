"""One way several times: what is stuck is begun anew beside, and the first to end decides."""

import asyncio

import pytest

from counter.race import first_to_end
from tests.support.waiting import eventually


class Ways:
    """A way that ends as it is told, each time that it is begun, or is stuck."""

    def __init__(self, *ends: int | Exception | None) -> None:
        self._ends = iter(ends)
        self.begun = self.given_up = 0
        self.discarded: list[int] = []

    async def begin(self) -> int:
        self.begun += 1
        end = next(self._ends)
        if end is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        if isinstance(end, Exception):
            raise end
        assert end is not None
        return end

    async def discard(self, prize: int) -> None:
        self.discarded.append(prize)

    async def run(self, every: float = 0.001) -> int:
        return await first_to_end(self.begin, every=every, discard=self.discard)


async def test_a_way_that_ends_is_begun_once() -> None:
    ways = Ways(1, 2)
    assert await ways.run(every=60) == 1
    assert (ways.begun, ways.discarded) == (1, [])


async def test_one_that_is_stuck_is_given_up_when_another_has_ended() -> None:
    ways = Ways(None, None, 3)
    assert await ways.run() == 3
    assert (ways.begun, ways.given_up) == (3, 2)


async def test_a_failure_decides_too_and_does_not_wait_for_what_is_stuck() -> None:
    ways = Ways(None, OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await ways.run()
    assert (ways.begun, ways.given_up) == (2, 1)


async def test_that_a_later_one_takes_too_long_decides_nothing() -> None:
    ways = Ways(None, TimeoutError(), 3)
    assert await ways.run() == 3
    with pytest.raises(TimeoutError):
        await Ways(TimeoutError(), 2).run(every=60)


async def test_of_two_that_end_in_the_same_moment_one_is_discarded() -> None:
    both = asyncio.Event()
    ways = Ways()

    async def begin() -> int:
        ways.begun += 1
        number = ways.begun
        if number == 2:
            asyncio.get_running_loop().call_soon(both.set)
        await both.wait()
        return number

    won = await first_to_end(begin, every=0.001, discard=ways.discard)
    assert sorted([won, *ways.discarded]) == list(range(1, ways.begun + 1))


async def test_who_gives_up_waiting_leaves_nothing_under_way() -> None:
    ways = Ways(*[None] * 10_000)
    waiting = asyncio.create_task(ways.run())
    await eventually(lambda: ways.begun > 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ways.given_up == ways.begun
