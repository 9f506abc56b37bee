"""One way several times: what is stuck is begun anew beside, and the first to end decides."""

import asyncio
from contextlib import nullcontext

import pytest

from counter.race import first, first_to_end
from tests.support.waiting import eventually


class Ways:
    """A way that ends as it is told, each time that it is begun, or is stuck until all go on."""

    def __init__(self, *ends: int | Exception | None) -> None:
        self._ends = iter(ends)
        self.begun = self.given_up = 0
        self.discarded: list[int] = []
        self.go_on = asyncio.Event()

    async def begin(self) -> int:
        self.begun += 1
        number, end = self.begun, next(self._ends, None)
        if isinstance(end, Exception):
            raise end
        if end is None:
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        return end or number

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


@pytest.mark.parametrize("gives_up", [True, False])
async def test_of_those_that_end_together_all_but_one_are_discarded_and_nothing_is_left(
    gives_up: bool,
) -> None:
    ways = Ways()
    racing = asyncio.create_task(ways.run())
    await eventually(lambda: ways.begun > 1)
    if gives_up:
        racing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await racing
        assert ways.given_up == ways.begun
    else:
        ways.go_on.set()
        assert sorted([await racing, *ways.discarded]) == list(range(1, ways.begun + 1))


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("more", range(1, 5))
@pytest.mark.parametrize("to_end", [False, True], ids=["first", "first to end"])
async def test_who_is_cancelled_twice_in_any_turns_leaves_no_prize(
    turns: int, more: int, to_end: bool
) -> None:
    """As by two deadlines that are over in the same moment, on a busy machine."""
    ways = Ways(1)
    race = ways.run() if to_end else first([ways.begin] * 2, discard=ways.discard)
    racing = asyncio.create_task(race)
    for number in turns, more:
        for _ in range(number):
            await asyncio.sleep(0)
        racing.cancel()
    kept = await asyncio.gather(racing, return_exceptions=True)
    won = [1] * bool(ways.begun)
    await eventually(lambda: won in (kept, ways.discarded))
