"""What was counted in the last minutes, hours and day is kept by version, exactly, and bounded."""

import asyncio
import random
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from counter import Visits, process_key
from replicas import HISTORIES, Figures, Snapshot, figures
from tests.support import Patch
from tests.support.counting import counting, permit, reading, replica
from tests.support.store import unpacked
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

#: A script takes this from a step's time, where a test counts in the past.
AGO = 60


def key_of(last: str) -> str:
    return f"{{counter}}:last:{last}"


async def snapshot_of(visits: Visits) -> Snapshot:
    with reading(visits) as reader:
        return await reader.read(HISTORIES)


def test_each_step_of_a_history_gets_as_many_signs(monkeypatch: Patch) -> None:
    """Or steady visits would show dips."""
    clock = SimpleNamespace(now=1_000_000.0, time=lambda: clock.now, monotonic=lambda: clock.now)
    monkeypatch.setattr(figures, "time", clock)
    one = Figures("web-1")
    step = HISTORIES["5m"].step
    signs: Counter[int] = Counter()
    behind: Counter[int] = Counter()  # the same where Redis's clock is
    for _ in range(10_000):
        clock.now += random.uniform(0.001, 0.03)
        if one.commands(process_key("a"), 0, 1, scripts=True):
            signs[int(clock.now // step)] += 1
            behind[int((clock.now - 0.01) // step)] += 1
    for found in signs, behind:
        whole = [found[one] for one in sorted(found)[1:-1]]
        assert len(whole) > 50
        assert set(whole) == {step / figures.SIGN_EVERY}


def by_version(shown: Snapshot, last: str = "5m") -> Counter[str]:
    return sum((Counter(visits) for _, visits in shown.moments[last]), Counter())


async def count(visits: Visits, number: int) -> None:
    assert None not in await asyncio.gather(*(visits.count() for _ in range(number)))


def marked(valkey: Valkey, ago: float) -> float:
    """Have the only process of which there is a mark have been marked so long ago."""
    (key,) = [one for one in valkey.client.keys("*:process:*") if valkey.client.hget(one, "marked")]
    then = time.time() - ago
    shown = valkey.client.hget(key, "marked").split()[1].decode()
    valkey.client.hset(key, "marked", f"{then:.3f} {shown}")
    return then


async def test_the_history_of_each_version_is_all_that_was_shown(valkey: Valkey) -> None:
    async with (
        replica(valkey.url, "web-1", version="1.0") as old,
        replica(valkey.url, "web-2", version="1.0") as another,
        replica(valkey.url, "web-3", version="2.0 b=é%") as new,
        replica(valkey.url, "web-4") as unnamed,
    ):
        begun, rounds, steps = time.time(), 0, list[float]()
        while len(steps) < 2:
            assert time.time() < begun + PATIENCE
            for visits, number in ((old, 7), (another, 1), (new, 3), (unnamed, 2)):
                await count(visits, number)
            valkey.client.incrby("counter", 40)  # by others, who are in no history
            rounds += 1
            shown = await snapshot_of(old)
            expected = {"1.0": 8 * rounds, "2.0 b=é%": 3 * rounds, "": 2 * rounds}
            assert [by_version(shown, last) for last in HISTORIES] == [expected] * 3
            assert shown.total == 53 * rounds
            steps = [second for second, _ in shown.moments["5m"]]
        assert begun - 2 < steps[0] < steps[-1] <= time.time()


async def test_looks_meanwhile_count_each_visit_once(valkey: Valkey, monkeypatch: Patch) -> None:
    monkeypatch.setattr(figures, "SIGN_EVERY", 0.005)
    ended = False

    async def go_on(one: Visits) -> None:
        while not ended:
            await count(one, 1)

    async with replica(valkey.url, version="1") as visits, replica(valkey.url) as other:
        await count(visits, 1)
        await count(other, 1)
        going = [asyncio.create_task(go_on(one)) for one in (visits, other)]
        with reading(visits) as reader:
            for _ in range(15):
                # So many that Redis reads the look in several pieces, the servers' being the last.
                ahead = dict.fromkeys(map(str, range(900)), time.time() + figures.OFF / 2)
                valkey.client.zadd("{counter}:processes", ahead)
                look = await reader.read(["5m"])
                assert by_version(look).total() == look.total
        ended = True
        await asyncio.gather(*going)


@pytest.mark.usefixtures("always_signed")
@pytest.mark.parametrize("last", HISTORIES)
async def test_a_step_takes_the_place_of_a_round_before_alone(valkey: Valkey, last: str) -> None:
    step, steps = HISTORIES[last]
    key = key_of(last)
    async with replica(valkey.url) as visits:
        await count(visits, 5)
        start = int(marked(valkey, AGO) // step) * step
        assert dict((await snapshot_of(visits)).moments[last]) == {start: {"": 5}}
        slot = str(start // step % steps)
        valkey.client.hset(key, slot, f"{start - step * steps} x=7 =3")
        await count(visits, 1)
        assert valkey.client.hget(key, slot) == f"{start} =5".encode()

        marked(valkey, AGO + step * steps)  # of a round before
        await count(visits, 1)
        assert valkey.client.hget(key, slot) == f"{start} =5".encode()
        moments = (await snapshot_of(visits)).moments[last]
        assert all(second > time.time() - step * steps - step for second, _ in moments)

        start = int(marked(valkey, AGO) // step) * step
        slot = str(start // step % steps)
        valkey.client.hset(key, slot, f"{start + step * steps * 9} =3")  # the clock was wrong
        await count(visits, 1)
        assert valkey.client.hget(key, slot) == f"{start} =1".encode()


@pytest.mark.usefixtures("always_signed")
async def test_more_versions_than_a_step_tells_apart_count_as_one(valkey: Valkey) -> None:
    for number in range(1, 13):
        async with replica(valkey.url, f"web-{number}", version=f"{number}") as visits:
            await count(visits, 2)
            await count(visits, 1)
            process = valkey.client.keys(f"*{visits.process_id}")[0]
            valkey.client.hset(process, "marked", "")  # what came last is of no step then
    async with replica(valkey.url) as visits:
        shown = by_version(await snapshot_of(visits), "1d")
    assert shown == {**{f"{number}": 2 for number in range(1, 9)}, "…": 8}


@pytest.mark.usefixtures("always_signed")
@pytest.mark.parametrize("last", HISTORIES)
async def test_what_histories_take_is_bounded(valkey: Valkey, last: str) -> None:
    step, steps = HISTORIES[last]
    key, now = key_of(last), int(time.time() // step)
    versions = [f"2026.11.{number}-rc1" for number in range(9)]
    for words, most in (
        (" ".join(f"{version}=1234567" for version in versions), 64_000),
        (f"{versions[0]}=12345", 8_000),
    ):
        valkey.client.delete(key)
        for i in range(now, now - steps, -1):  # as the script writes it
            valkey.client.hset(key, str(i % steps), f"{i * step} {words}")
        assert valkey.client.memory_usage(key, samples=0) < most
    async with replica(valkey.url, version=versions[0]) as visits:
        for _ in range(3):
            await count(visits, 1)
    assert valkey.client.hlen(key) == steps
    assert step * steps - PATIENCE < valkey.client.ttl(key) <= step * steps


@pytest.mark.usefixtures("always_signed")
async def test_without_scripts_there_is_no_history(valkey: Valkey, monkeypatch: Patch) -> None:
    async with replica(valkey.url) as visits:
        await count(visits, 1)
        permit(valkey.client, "-evalsha")
        await count(visits, 5)
        await count(visits, 5)
        assert not visits.exactly_once
        assert not any((await snapshot_of(visits)).moments.values())
        assert not valkey.client.keys("{counter}:last:*")
        permit(valkey.client, "+evalsha")
        monkeypatch.setattr("counter.delivery.REFUSED_FOR", 0)
        await count(visits, 3)
        assert by_version(await snapshot_of(visits)) == {"": 3}


@pytest.mark.usefixtures("always_signed")
async def test_a_sign_that_comes_again_or_late_adds_nothing(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits:
        key = process_key(visits.process_id)
        own, copies = Figures("web-1"), list[bytes]()
        for number in range(3):
            copies += own.commands(key, shown=number, visits=1, scripts=True)
            await count(visits, 1)
            assert valkey.client.execute_command(*unpacked(copies[-1])) == b"OK"
        for copy in [*copies, *copies[::-1]]:
            assert valkey.client.execute_command(*unpacked(copy)) == b"OK"
            shown = await snapshot_of(visits)
            assert [by_version(shown, last) for last in HISTORIES] == [{"": 3}] * 3


async def test_what_may_not_be_read_at_once_is_read_one_after_the_other(valkey: Valkey) -> None:
    for command in ("multi", "exec"):
        permit(valkey.client, f"-{command}")
        async with replica(valkey.url) as visits:
            await count(visits, 1)
            shown = await snapshot_of(visits)
            assert shown.records[0].visits == 1
            assert not [*shown.refused, *shown.refused_histories]
        permit(valkey.client, f"+{command}")
