"""One way several times: what is stuck is begun anew beside, and the first to end decides."""

import asyncio
from contextlib import nullcontext

import pytest

from counter.race import first, first_to_end
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
        if isinstance(end, Exception):
            raise end
        if end is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        return end or 0

    async def discard(self, prize: int) -> None:
        self.discarded.append(prize)

    async def run(self, every: float = 0.001) -> int:
        return await first_to_end(self.begin, every=every, discard=self.discard)


@pytest.mark.parametrize(
    ("ends", "every", "begun"),
    [
        ((1, 2), 60, 1),
        ((None, None, 3), 0.001, 3),
        ((None, OSError("refused")), 0.001, 2),
        ((TimeoutError(), 2), 60, 1),
        ((None, TimeoutError(), 3), 0.001, 3),  # that a later one takes too long decides nothing
    ],
)
async def test_the_first_to_end_or_to_fail_decides_and_those_that_are_stuck_are_given_up(
    ends: tuple[int | Exception | None, ...], every: float, begun: int
) -> None:
    ways, decides = Ways(*ends), ends[begun - 1]
    with pytest.raises(type(decides)) if isinstance(decides, Exception) else nullcontext():
        assert await ways.run(every) == decides
    assert (ways.begun, ways.given_up, ways.discarded) == (begun, ends.count(None), [])


async def test_of_two_that_end_in_the_same_moment_one_is_discarded() -> None:
    both = asyncio.Event()
    ways = Ways(*range(1, 10_000))
    begin = ways.begin

    async def begin_both() -> int:
        number = await begin()
        if number == 2:
            asyncio.get_running_loop().call_soon(both.set)
        await both.wait()
        return number

    ways.begin = begin_both  # type: ignore[method-assign]
    assert sorted([await ways.run(), *ways.discarded]) == list(range(1, ways.begun + 1))


async def test_who_gives_up_waiting_leaves_nothing_under_way() -> None:
    ways = Ways(*[None] * 10_000)
    waiting = asyncio.create_task(ways.run())
    await eventually(lambda: ways.begun > 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ways.given_up == ways.begun


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("more", range(1, 5))
@pytest.mark.parametrize("to_end", [False, True], ids=["first", "first to end"])
async def test_who_is_cancelled_twice_in_any_turns_leaves_no_prize(
    turns: int, more: int, to_end: bool
) -> None:
    """As by two deadlines that are over in the same moment, on a busy machine."""
    ways = Ways(1, None)
    race = ways.run() if to_end else first([ways.begin] * 2, discard=ways.discard)
    racing = asyncio.create_task(race)
    for number in turns, more:
        for _ in range(number):
            await asyncio.sleep(0)
        racing.cancel()
    kept = await asyncio.gather(racing, return_exceptions=True)
    won = [1] * bool(ways.begun)
    await eventually(lambda: won in (kept, ways.discarded))
