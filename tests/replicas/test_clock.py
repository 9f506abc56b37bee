"""Redis's clock may be set: states rest on what was seen when, and settle within a minute."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from counter import process_key
from replicas import Mark, Reader, Snapshot, known, marks_of, reading
from replicas.keys import HISTORIES
from replicas.records import FIELDS
from tests.support import Patch
from tests.support.counting import reading as reading_of
from tests.support.counting import replica, replicas_in
from tests.support.valkey import Valkey

HOUR = 3600.0


@dataclass
class Simulated:
    """A Redis whose clock a test sets, and processes that give signs; one step is a second."""

    now: float = 1_764_220_000.0
    passed: float = 1000.0  # on the machine's monotonic clock
    scores: dict[str, float] = field(default_factory=dict)
    records: dict[str, dict[str, str]] = field(default_factory=dict)
    counting: set[str] = field(default_factory=set)  # those that give a sign each second
    scripts: bool = True  # the script writes the signs; else another clock's time is in them
    late: float = 0.0  # where that clock is, of Redis's
    stalls: tuple[int, int] = (0, 0)  # steps while commands are under way, and while replies are

    def sign(self, id: str) -> None:
        """Write what the script writes; that it does is what other tests are for."""
        record = self.records.setdefault(id, {"hostname": id, "began": f"{self.passed}"})
        record["visits"] = f"{int(record.get('visits', 0)) + 1}"
        record["started"] = f"{self.now - (self.passed - float(record['began'])):.3f}"
        if self.scripts:
            record["marked"] = f"{self.now} {record['visits']}"
            ahead = max(*self.scores.values(), 0, 0) - self.now
            for other, score in self.scores.items():
                self.scores[other] = score - ahead if score - self.now > 1 else score
        self.scores[id] = self.now + self.late

    def step(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1
            self.passed += 1
            for id in self.counting:
                self.sign(id)

    # As `replicas.link.Link`.

    async def within_time(self, talk: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
        return await talk()

    async def ask_at_once(self, commands: Sequence[bytes]) -> list[Any]:
        self.step(self.stalls[0])
        replies = [self._reply(*command.split(b"\r\n")[2::2]) for command in commands]
        self.step(self.stalls[1])
        return replies

    def _reply(self, verb: bytes, *words: bytes) -> Any:
        if verb == b"TIME":
            return [b"%d" % self.now, b"0"]
        if verb == b"ZREVRANGE":
            found = sorted(self.scores.items(), key=lambda one: -one[1])
            return [word for id, score in found for word in (id.encode(), b"%f" % score)]
        if verb == b"HMGET":
            record = self.records[words[0].decode().rpartition(":")[2]]
            return [record[name].encode() if name in record else None for name in FIELDS]
        return None


@pytest.fixture
def simulated(monkeypatch: Patch) -> Simulated:
    one = Simulated()
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: one.passed))
    # Let what is known of most be what was read before the clock was set.
    monkeypatch.setattr(known, "AGAIN", 1)
    return one


def watching(simulated: Simulated) -> Reader:
    reader = Reader(SimpleNamespace(reason=str))  # type: ignore[arg-type]
    reader._link = simulated  # type: ignore[assignment]
    return reader


async def states(reader: Reader) -> dict[str, str]:
    return {one.hostname: one.state for one in replicas_in(await reader.read())}


async def marks(reader: Reader) -> list[Mark]:
    shown = await reader.read()
    return await marks_of(shown.records, shown.time)


def pass_some_time(simulated: Simulated) -> None:
    """Let one have been killed, one go on, and one have said goodbye."""
    simulated.counting = {"killed", "alive", "gone"}
    simulated.step(10)
    simulated.counting = {"alive"}
    simulated.records["gone"]["state"] = "gone"
    simulated.step(60)


STATES = {"alive": "", "gone": "gone", "killed": "silent"}


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("steps", [[-HOUR], [HOUR], [-3.0], [24 * HOUR, -24 * HOUR]])
async def test_states_stay_what_they_are_for_who_watches_and_settle_for_who_comes(
    simulated: Simulated, steps: list[float], scripts: bool
) -> None:
    simulated.scripts = scripts
    pass_some_time(simulated)
    watched = watching(simulated)
    assert await states(watched) == STATES
    for seconds in steps:
        simulated.now += seconds
        for _ in range(70):
            simulated.step()
            assert await states(watched) == STATES
        comes = watching(simulated)
        for _ in range(10):
            await comes.read()
            simulated.step()
        assert await states(comes) == STATES
    assert await states(watched) == STATES
    simulated.counting.clear()  # it has no visits, as the clock is set once more
    simulated.now += steps[0]
    for _ in range(20):
        simulated.step()
        assert await states(watched) == STATES
        assert (await states(watching(simulated)))["alive"] == ""


async def test_marks_neither_vanish_nor_lie_ahead(simulated: Simulated) -> None:
    pass_some_time(simulated)
    watched = watching(simulated)
    before = {(one.kind, one.hostname) for one in await marks(watched)}
    assert ("silent", "killed") in before
    simulated.now += 24 * HOUR
    simulated.counting.add("ahead")
    simulated.step(5)
    await watched.read()
    simulated.counting.remove("ahead")  # killed while the clock was wrong
    simulated.now -= 24 * HOUR
    simulated.step(60)
    for one in (watched, watching(simulated)):
        await one.read()
        simulated.step(6)
        found = await marks(one)
        kinds = {(mark.kind, mark.hostname) for mark in found}
        assert before | {("came", "ahead"), ("silent", "ahead")} <= kinds
        assert all(mark.time <= simulated.now for mark in found)
        assert found == await marks(one), "they stay where they are"


@pytest.mark.parametrize("late", [-600.0, 600.0])
async def test_without_scripts_each_machine_has_a_clock(simulated: Simulated, late: float) -> None:
    simulated.scripts, simulated.late = False, late
    simulated.counting = {"one", "other", "killed"}
    simulated.step(3)
    watched = watching(simulated)
    await watched.read()
    simulated.counting.remove("killed")
    for _ in range(8):
        simulated.step()
        shown = await watched.read()
    found = {one.hostname: one.state for one in replicas_in(shown)}
    assert found == {"one": "", "other": "", "killed": "silent"}
    assert all(one.seen <= 1 for one in replicas_in(shown) if not one.state)


async def test_a_loop_that_stands_still_or_a_clock_that_goes_a_little_faster_sets_none(
    simulated: Simulated,
) -> None:
    pass_some_time(simulated)
    watched = watching(simulated)
    before = await marks(watched)
    for stalls in ((4, 0), (0, 0), (0, 4), (0, 0)):
        simulated.stalls = stalls
        assert await marks(watched) == before
    simulated.counting.clear()
    for _ in range(60):
        simulated.now += 0.05
        simulated.step()
        assert await marks(watched) == before


@pytest.mark.usefixtures("always_signed")
async def test_signs_that_lie_ahead_are_taken_back(valkey: Valkey) -> None:
    ahead = time.time() + HOUR
    names = "{counter}:processes"
    valkey.client.zadd(names, {f"ahead-{i}": ahead + i for i in range(25)} | {"just": time.time()})
    async with replica(valkey.url) as visits:
        for _ in range(4):
            assert await visits.count()
        scores = dict(valkey.client.zrange(names, 0, -1, withscores=True))  # type: ignore[arg-type]
        assert len(scores) == 27
        assert max(scores.values()) <= time.time()
        apart = [scores[b"ahead-%d" % i] - scores[b"ahead-0"] for i in range(25)]
        assert apart == pytest.approx(range(25), abs=0.01), "as they were"
        # What it had shown by its own last sign, which lies ahead too, counts as of now.
        valkey.client.hset(process_key(visits.process_id), "marked", f"{ahead:.3f} 3")
        assert await visits.count()
        with reading_of(visits) as reader:
            moments = (await reader.read(HISTORIES)).moments
        assert [sum(one[1][""] for one in moments[last]) for last in HISTORIES] == [5, 5, 5]
        assert all(start <= time.time() for last in HISTORIES for start, _ in moments[last])
