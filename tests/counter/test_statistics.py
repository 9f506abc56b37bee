"""The replicas' figures go along with the visits, and never cost one its number."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from counter import statistics
from counter.statistics import DAY, ReplicaStatistics, StatisticsReader
from counter.visits import KEY, Visits
from tests.support.fake_redis import FakeRedis
from tests.support.page import counters_lines
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within


@contextlib.asynccontextmanager
async def counting(
    url: str, hostname: str = "web-1", timeout: float = PATIENCE, **options: Any
) -> AsyncIterator[Visits]:
    visits = Visits(url, hostname=hostname, timeout=timeout, **options)
    try:
        yield visits
    finally:
        await visits.close()


@contextlib.asynccontextmanager
async def reading(visits: Visits) -> AsyncIterator[StatisticsReader]:
    reader = visits.reader()
    try:
        yield reader
    finally:
        await reader.close()


async def figures_of(visits: Visits) -> list[tuple[str, int]]:
    async with reading(visits) as reader:
        return [(one.hostname, one.visits) for one in (await reader.read()).replicas]


# What is written.


@pytest.mark.gen_test
async def test_figures_are_sent_along_and_not_after_the_reply(
    fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MARK_EVERY", PATIENCE)
    async with counting(fake.url) as visits:
        with fake.held():
            first = asyncio.create_task(visits.count())
            await eventually(lambda: len(fake.figures) == 6)
            assert fake.figures[0].words == ("HINCRBY", "{counter}:replica:web-1", "visits", "1")
            group = [asyncio.create_task(visits.count()) for _ in range(10)]
            await asyncio.sleep(0)
        assert [await first, *await asyncio.gather(*group)] == list(range(1, 12))
        assert fake.figures[6].words == ("HINCRBY", "{counter}:replica:web-1", "visits", "10")
        assert len(fake.figures) == 7, "its name goes along once in a while"
        assert [one.words[0] for one in fake.commands] == ["INCR", "INCRBY"]


def commands_of(valkey: Valkey, monitor: Any) -> list[str]:
    valkey.client.echo("end")
    seen = []
    while not (command := monitor.next_command()["command"]).startswith("ECHO"):
        seen.append(command)
    return seen


@pytest.mark.gen_test
async def test_wait_comes_last_and_covers_the_figures(valkey: Valkey) -> None:
    async with counting(valkey.url, wait=1, timeout=0.5) as visits:
        await visits.start(PATIENCE)
        with valkey.client.monitor() as monitor:
            assert await visits.count() is None  # no replica acknowledges it
            seen = commands_of(valkey, monitor)
    assert [one.split()[0] for one in seen[:8]] == [
        *("INCR", "HINCRBY", "HSET", "EXPIRE", "ZADD", "ZREMRANGEBYSCORE", "EXPIRE", "WAIT")
    ]


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
async def test_looking_for_redis_writes_no_figures(fake: FakeRedis) -> None:
    fake.refuse()
    async with counting(fake.url) as visits:
        assert await visits.count() is None
        fake.listen()
        await eventually(lambda: visits.up)
        assert {one.words for one in fake.commands} == {("INCRBY", "counter", "0")}
        assert fake.figures == []


def test_all_keys_lie_in_the_counters_slot() -> None:
    for hostname in ("web-1", "{other}", "}{", "a b\r\n<script>"):
        keys = {str(command[1]) for command in ReplicaStatistics(KEY, hostname).commands(1)}
        assert {key_slot(key.encode()) for key in keys} == {key_slot(KEY.encode())}
        assert len(keys) == 2


@pytest.mark.gen_test
async def test_what_replicas_count_adds_up(valkey: Valkey) -> None:
    async with (
        counting(valkey.url, "web-1") as one,
        counting(valkey.url, "<b>{web}\r\n2") as other,
        counting(valkey.url, "<b>{web}\r\n2") as its_second_process,
    ):
        before = time.time()
        for visits, times in ((one, 30), (other, 20), (its_second_process, 5)):
            await asyncio.gather(*(visits.count() for _ in range(times)))
            await visits.count()
        async with reading(one) as reader:
            figures = await reader.read()
        assert figures.total == valkey.counter() == 58
        assert [(one.hostname, one.visits) for one in figures.replicas] == [
            ("<b>{web}\r\n2", 27),
            ("web-1", 31),
        ]
        after = time.time()
        # A replica is marked once a second.
        assert all(0 <= one.seen < after - before + 1.1 for one in figures.replicas)
        assert before - 1 < figures.time < after + 1


# Dropped after a day.


@pytest.mark.gen_test
async def test_a_replica_is_dropped_a_day_after_it_was_seen(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits:
        await visits.count()
        ours = ("{counter}:replica:web-1", "{counter}:replicas")
        for key in ours:
            assert DAY - PATIENCE < valkey.client.ttl(key) <= DAY
        gone = "{counter}:replica:gone"
        valkey.client.hset(gone, "visits", 7)
        valkey.client.expire(gone, 2 * 60 * 60)
        valkey.client.zadd("{counter}:replicas", {"gone": time.time() - DAY + 60})
        assert await figures_of(visits) == [("gone", 7), ("web-1", 1)]
        async with reading(visits) as reader:
            seen = (await reader.read()).replicas[0].seen
            assert 0 <= seen - 22 * 60 * 60 < PATIENCE

        valkey.client.pexpire(gone, 1)
        await eventually(lambda: not valkey.client.exists(gone))
        assert await figures_of(visits) == [("web-1", 1)]
        assert valkey.client.ttl("counter") == -1, "the counter is never dropped"


@pytest.mark.gen_test
async def test_names_of_replicas_not_seen_for_a_day_go_though_nobody_watches(
    valkey: Valkey,
) -> None:
    now = time.time()
    valkey.client.zadd("{counter}:replicas", {f"old-{i}": now - DAY - 1 - i for i in range(5000)})
    valkey.client.zadd("{counter}:replicas", {"of-today": now - DAY + 99})
    async with counting(valkey.url) as visits:
        await visits.count()
    assert valkey.client.zrange("{counter}:replicas", 0, -1) == [b"of-today", b"web-1"]


def test_a_replica_is_marked_again_after_a_second_and_when_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([1e9, 1e9 + 0.9, 1e9 + 1.0, 1e9 + 1.5, 1e9 - 3600, 1e9 - 3599.5])
    monkeypatch.setattr(statistics, "time", SimpleNamespace(time=lambda: next(clock)))
    tally = ReplicaStatistics(KEY, "web-1")
    marks = [len(tally.commands(1)) > 1 for _ in range(6)]
    assert marks == [True, False, True, False, True, False]


# Faults in these keys.


FAULTS = {
    "replica's key of another type": lambda client: client.set("{counter}:replica:web-1", "x"),
    "replica's figure not a number": lambda client: client.hset(
        "{counter}:replica:web-1", "visits", "x"
    ),
    "replica's figure at its end": lambda client: client.hset(
        "{counter}:replica:web-1", "visits", 2**63 - 1
    ),
    "names of another type": lambda client: client.rpush("{counter}:replicas", "x"),
    "no permission for the keys": lambda client: client.acl_setuser(
        "default", enabled=True, reset_keys=True, keys=["counter"]
    ),
    "no permission for the commands": lambda client: client.acl_setuser(
        "default", enabled=True, commands=["-hincrby", "-hset", "-zadd", "-expire"]
    ),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_the_figures_costs_no_visit_its_number(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    async with counting(valkey.url) as visits:
        await visits.start(PATIENCE)
        FAULTS[fault](valkey.client)
        connections = valkey.client.info("stats")["total_connections_received"]
        assert [await visits.count() for _ in range(3)] == [1, 2, 3]
        waves = [asyncio.create_task(visits.count()) for _ in range(50)]
        assert await asyncio.gather(*waves) == list(range(4, 54))
        assert visits.up
        assert valkey.client.info("stats")["total_connections_received"] == connections
    ((level, text),) = counters_lines(caplog)
    assert level == "WARNING"
    assert text.startswith("not all that /live shows can be kept: ")


@pytest.mark.gen_test
@pytest.mark.parametrize("error", [b"-OOM command not allowed", b"-ASK 6680 127.0.0.1:1", b"-"])
async def test_an_error_for_the_figures_alone_costs_no_visit_its_number(
    fake: FakeRedis, error: bytes
) -> None:
    fake.figure = error + b"\r\n"
    async with counting(fake.url) as visits:
        assert [await visits.count() for _ in range(3)] == [1, 2, 3]
        assert len(fake.connections) == 1


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
async def test_figures_that_are_not_answered_end_with_the_deadline(fake: FakeRedis) -> None:
    fake.figure = b""
    async with counting(fake.url, timeout=1) as visits:
        assert await within(1, visits.count()) is None
        fake.heal()
        await eventually(lambda: visits.up)
        assert await visits.count() == 2, "it was not sent again"


# Reading.


@pytest.mark.gen_test
async def test_figures_that_cannot_be_read_leave_the_total(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits, reading(visits) as reader:
        assert (await reader.read()).total == 0
        await visits.count()
        valkey.client.zadd("{counter}:replicas", {"another": time.time(), "a list": time.time()})
        valkey.client.hset("{counter}:replica:another", "colour", "blue")
        valkey.client.rpush("{counter}:replica:a list", "x")
        figures = await reader.read()
        assert (figures.total, [one.hostname for one in figures.replicas]) == (1, ["web-1"])
        valkey.client.set("{counter}:replicas", "x")
        figures = await reader.read()
        assert (figures.total, list(figures.replicas)) == (1, [])


@pytest.mark.gen_test
async def test_of_too_many_replicas_those_seen_last_are_read(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MAX_REPLICAS", 2)
    for i in range(4):
        valkey.client.zadd("{counter}:replicas", {f"web-{i}": 1_000 - i})
        valkey.client.hset(f"{{counter}}:replica:web-{i}", "visits", i)
        valkey.client.expire(f"{{counter}}:replica:web-{i}", DAY)
    async with counting(valkey.url) as visits, reading(visits) as reader:
        found = (await reader.read()).replicas
    assert [(one.hostname, one.visits) for one in found] == [("web-0", 0), ("web-1", 1)]


@pytest.mark.gen_test
async def test_a_look_that_takes_too_long_is_given_up_and_the_next_one_succeeds(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "READ_TIMEOUT", PATIENCE)
    async with counting(valkey.url) as visits, reading(visits) as reader:
        await reader.read()
        kept = reader._redis
        await reader.read()
        assert reader._redis is kept
        valkey.hang()
        monkeypatch.setattr(statistics, "READ_TIMEOUT", 0.2)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await within(0.2, reader.read())
            assert reader._redis is None, "the way to Redis is asked anew"
        valkey.go_on()
        monkeypatch.setattr(statistics, "READ_TIMEOUT", PATIENCE)
        assert (await reader.read()).total == 0
        await eventually(lambda: len(valkey.client.client_list()) == 2)


@pytest.mark.gen_test
async def test_a_counter_that_is_no_number_cannot_be_read(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits, reading(visits) as reader:
        valkey.client.set("counter", "x")
        with pytest.raises(ValueError, match="x"):
            await reader.read()
        valkey.client.delete("counter")
        valkey.client.rpush("counter", "x")
        with pytest.raises(redis.ResponseError):
            await reader.read()
        valkey.client.delete("counter")
        assert (await reader.read()).total == 0
