"""What a process has to say of itself is told at once, and costs no visit and no stop its time."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest
import redis

from counter import StatisticsReader, Visits
from counter.reading import Process
from tests.support.counting import ALWAYS, counting
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually


async def process_of(reader: StatisticsReader) -> Process:
    return (await reader.read()).processes[0]


async def told(reader: StatisticsReader, is_so: Callable[[Process], object]) -> Process:
    """Wait until a process has told something; Redis may come back meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError, redis.RedisError):
            if is_so(one := await process_of(reader)):
                return one
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.mark.gen_test
async def test_it_is_told_at_once_that_a_process_is_to_stop_and_that_it_has(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.telling.MARK_EVERY", 10 * PATIENCE)  # not by the next look
    async with counting(valkey.url) as other:
        reader = other.reader()
        visits = Visits(valkey.url, hostname="web-2")
        assert await visits.count() == 1
        visits.start_telling()
        assert (await process_of(reader)).state == ""
        visits.drain()
        await told(reader, lambda one: one.state == "draining")
        assert await visits.count() == 2, "it counts as before"
        await visits.close()
        one = await process_of(reader)
        assert (one.state, one.visits) == ("gone", 2)
        await reader.close()
    await eventually(lambda: len(valkey.client.client_list()) == 1)


@pytest.mark.gen_test
async def test_a_process_that_nobody_knows_says_nothing(valkey: Valkey) -> None:
    visits = Visits(valkey.url)
    await visits.start(PATIENCE)
    visits.start_telling()
    visits.drain()
    begun = time.monotonic()
    await visits.close()
    assert time.monotonic() - begun < PATIENCE
    assert not valkey.client.exists("{counter}:processes")


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
async def test_times_without_redis_are_told_once_it_is_back_the_last_ones(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.telling.MAX_SPELLS", 2)
    async with counting(valkey.url) as visits:
        visits.start_telling()
        reader = visits.reader()
        assert await visits.count() == 1
        for _ in range(3):
            valkey.kill()
            begun = time.time()
            assert await visits.count() is None
            valkey.start()
            ended = time.time()
            await eventually(lambda: visits.up)
            one = await told(
                reader,
                lambda one, then=begun: [spell for spell in one.away if spell.start > then - 1],
            )
            last = one.away[-1]
            assert begun - 0.1 <= last.start <= last.end <= time.time() + 0.1
            assert last.end >= ended - 0.1
            assert "valkey.sock" in last.reason
        assert len(one.away) == 2
        await reader.close()


@pytest.mark.gen_test
async def test_when_a_process_began_is_told_once_and_not_when_it_first_counted(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.statistics.MARK_EVERY", ALWAYS)
    async with counting(valkey.url) as visits:
        begun = time.time()
        await visits.start(PATIENCE)
        started = time.time()
        await asyncio.sleep(0.5)
        await visits.count()
        reader = visits.reader()
        first = (await process_of(reader)).started
        assert begun - 0.1 < first < started + 0.1
        await visits.count()
        visits.start_telling(lambda: ["sick"])
        await told(reader, lambda one: one.faults)
        assert (await process_of(reader)).started == first
        await reader.close()
