"""Redis's clock may be set: states rest on what was seen when, and settle within a minute."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from counter import process_key
from replicas import Mark, Reader, Snapshot, figures, known, marks_of, reading
from replicas.keys import HISTORIES
from replicas.records import FIELDS
from tests.support import Patch
from tests.support.counting import ALWAYS, replica
from tests.support.counting import reading as reading_of
from tests.support.valkey import Valkey

HOUR = 3600.0


@dataclass
class Simulated:
    """A Redis whose clock a test sets, and processes that give signs; one step is a second."""

    now: float = 1_764_220_000.0
    passed: float = 1000.0
    """The machine's monotonic clock."""
    scores: dict[str, float] = field(default_factory=dict)
    records: dict[str, dict[str, str]] = field(default_factory=dict)
    counting: set[str] = field(default_factory=set)
    """Those that give a sign each second."""
    scripts: bool = True
    """Whether the script is what writes the signs, as it does; else another clock's time."""
    late: float = 0.0
    """Where that clock is, of Redis's."""

    def sign(self, id: str) -> None:
        """Write what the script writes; that it does is what other tests are for."""
        record = self.records.setdefault(id, {"hostname": f"web-{id}", "began": f"{self.passed}"})
        record["visits"] = f"{int(record.get('visits', 0)) + 1}"
        record["started"] = f"{self.now - (self.passed - float(record['began'])):.3f}"
        if self.scripts:
            record["marked"] = f"{self.now} {record['visits']}"
            ahead = max(*self.scores.values(), 0, 0) - self.now
            for other, score in self.scores.items():
                self.scores[other] = score - ahead if score - self.now > 1 else score
        self.scores[id] = self.now + self.late

    def step(self, seconds: float = 1.0) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            self.passed += 1
            for id in self.counting:
                self.sign(id)

    # As `replicas.link.Link`.

    async def within_time(self, talk: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
        return await talk()

    async def ask_at_once(self, commands: Sequence[bytes]) -> list[Any]:
        return [self._reply(*command.split(b"\r\n")[2::2]) for command in commands]

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
    return one


class Watched:
    def __init__(self, simulated: Simulated) -> None:
        connector = SimpleNamespace(reason=str)
        self._reader = Reader(connector)  # type: ignore[arg-type]
        self._reader._link = simulated  # type: ignore[assignment]

    async def look(self) -> dict[str, str]:
        self.shown = await self._reader.read()
        return {one.hostname: one.state for one in self.shown.replicas}

    async def marks(self) -> list[Mark]:
        await self.look()
        return await marks_of(self.shown.records, self.shown.time)


@pytest.fixture(autouse=True)
def rarely_read_again(monkeypatch: Patch) -> None:
    """Let what is known of most be what was read before the clock was set."""
    monkeypatch.setattr(known, "AGAIN", 1)


def seen(simulated: Simulated) -> None:
    """Let one have been killed, one go on, and one have said goodbye."""
    simulated.counting = {"killed", "alive", "gone"}
    simulated.step(10)
    simulated.counting = {"alive"}
    simulated.records["gone"]["state"] = "gone"
    simulated.step(60)


STATES = {"web-alive": "", "web-gone": "gone", "web-killed": "silent"}


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("steps", [[-HOUR], [HOUR], [-3.0], [24 * HOUR, -24 * HOUR]])
async def test_states_stay_what_they_are_for_who_watches_and_settle_for_who_comes(
    simulated: Simulated, steps: list[float], scripts: bool
) -> None:
    simulated.scripts = scripts
    seen(simulated)
    watched = Watched(simulated)
    assert await watched.look() == STATES
    for seconds in steps:
        simulated.now += seconds
        for _ in range(70):
            simulated.step()
            assert await watched.look() == STATES
        comes = Watched(simulated)
        for _ in range(10):
            await comes.look()
            simulated.step()
        assert await comes.look() == STATES


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
async def test_idle_replicas_stay_as_the_clock_is_set(simulated: Simulated, seconds: float) -> None:
    simulated.counting = {"1", "2"}
    simulated.step(3)
    simulated.counting.clear()
    watched = Watched(simulated)
    idle = {"web-1": "", "web-2": ""}
    assert await watched.look() == idle
    simulated.now += seconds
    for _ in range(20):
        simulated.step()
        assert await watched.look() == idle
        assert await Watched(simulated).look() == idle


async def test_marks_neither_vanish_nor_lie_ahead(simulated: Simulated) -> None:
    seen(simulated)
    watched = Watched(simulated)
    before = {(one.kind, one.hostname) for one in await watched.marks()}
    assert ("silent", "web-killed") in before
    simulated.now += 24 * HOUR
    simulated.counting.add("ahead")
    simulated.step(5)
    await watched.look()
    simulated.counting.remove("ahead")  # killed while the clock was wrong
    simulated.now -= 24 * HOUR
    simulated.step(60)
    for one in (watched, Watched(simulated)):
        await one.look()
        simulated.step(6)
        marks = await one.marks()
        kinds = {(mark.kind, mark.hostname) for mark in marks}
        assert before | {("came", "web-ahead"), ("silent", "web-ahead")} <= kinds
        assert all(mark.time <= simulated.now for mark in marks)
        assert [*marks] == await one.marks(), "they stay where they are"


@pytest.mark.parametrize("late", [-600.0, 600.0])
async def test_without_scripts_each_machine_has_a_clock(simulated: Simulated, late: float) -> None:
    simulated.scripts, simulated.late = False, late
    simulated.counting = {"one", "other", "killed"}
    simulated.step(3)
    watched = Watched(simulated)
    await watched.look()
    simulated.counting.remove("killed")
    for _ in range(8):
        simulated.step()
        states = await watched.look()
    assert states == {"web-one": "", "web-other": "", "web-killed": "silent"}
    assert all(one.seen <= 1 for one in watched.shown.replicas if not one.state)


@pytest.mark.parametrize("while_", ["the commands are under way", "the replies are"])
async def test_a_loop_that_stands_still_is_no_clock(simulated: Simulated, while_: str) -> None:
    seen(simulated)
    watched = Watched(simulated)
    before = await watched.marks()

    async def late(commands: Sequence[bytes]) -> list[Any]:
        if while_ == "the commands are under way":
            simulated.step(4)
            return await Simulated.ask_at_once(simulated, commands)
        replies = await Simulated.ask_at_once(simulated, commands)
        simulated.step(4)
        return replies

    simulated.ask_at_once = late  # type: ignore[method-assign]
    assert await watched.marks() == before
    del simulated.ask_at_once
    assert await watched.marks() == before


async def test_a_clock_that_goes_a_little_faster_is_none_that_was_set(simulated: Simulated) -> None:
    seen(simulated)
    simulated.counting.clear()
    watched = Watched(simulated)
    before = await watched.marks()
    for _ in range(60):
        simulated.now += 0.05
        simulated.step()
        assert await watched.marks() == before


async def test_signs_that_lie_ahead_are_taken_back(valkey: Valkey, monkeypatch: Patch) -> None:
    monkeypatch.setattr(figures, "SIGN_EVERY", ALWAYS)
    ahead = time.time() + HOUR
    names = "{counter}:processes"
    valkey.client.zadd(names, {f"ahead-{i}": ahead + i for i in range(25)} | {"just": time.time()})
    async with replica(valkey.url) as visits:
        own = process_key(visits.process_id)
        for _ in range(4):
            assert await visits.count()
        scores = dict(valkey.client.zrange(names, 0, -1, withscores=True))  # type: ignore[arg-type]
        assert len(scores) == 27
        assert max(scores.values()) <= time.time()
        apart = [scores[b"ahead-%d" % i] - scores[b"ahead-0"] for i in range(25)]
        assert apart == pytest.approx(range(25), abs=0.01), "as they were"
        # What it had shown by its own last sign, which lies ahead too, counts as of now.
        valkey.client.hset(own, "marked", f"{ahead:.3f} 3")
        assert await visits.count()
        with reading_of(visits) as reader:
            moments = (await reader.read(HISTORIES)).moments
        assert [sum(one[1][""] for one in moments[last]) for last in HISTORIES] == [5, 5, 5]
        assert all(start <= time.time() for last in HISTORIES for start, _ in moments[last])
