"""What stands beside the counter is written with the visits, and never costs one its number."""

import asyncio
import contextlib
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from counter import delivery, statistics
from counter.reading import StatisticsReader
from counter.statistics import DAY, ProcessStatistics
from counter.visits import KEY, Visits
from tests.support.counting import ALWAYS, counting
from tests.support.fake_redis import FakeRedis
from tests.support.page import counters_lines
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within


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


REFUSAL = b"-ERR unknown command 'EVALSHA'\r\n"


@pytest.mark.gen_test
async def test_without_scripts_figures_are_sent_along_and_not_after_the_reply(
    fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MARK_EVERY", math.inf)
    fake.scripts_refused = REFUSAL
    async with counting(fake.url) as visits:
        assert await visits.count() == 1
        with fake.held():
            first = asyncio.create_task(visits.count())
            await eventually(lambda: len(fake.figures) == 2)
            group = [asyncio.create_task(visits.count()) for _ in range(10)]
            await asyncio.sleep(0)
        assert [await first, *await asyncio.gather(*group)] == list(range(2, 13))
        sums = [one.words[2:] for one in fake.figures]
        assert sums == [("visits", "1"), ("visits", "2"), ("visits", "12")]
        assert [one.words[0] for one in fake.commands] == ["EVALSHA", "INCR", "INCR", "INCRBY"]


def commands_of(valkey: Valkey, monitor: Any) -> list[str]:
    """What clients have sent, and not what scripts ran."""
    valkey.client.echo("end")
    seen = []
    while not (one := monitor.next_command())["command"].startswith("ECHO"):
        if one["client_type"] != "lua":
            seen.append(one["command"])
    return seen


@pytest.mark.gen_test
async def test_a_group_is_one_command_and_wait_comes_after_it(valkey: Valkey) -> None:
    async with counting(valkey.url, wait=1, timeout=0.5) as visits:
        with valkey.client.monitor() as monitor:
            assert await visits.count() is None  # no replica acknowledges it
            seen = commands_of(valkey, monitor)
    assert [one.split()[0] for one in seen[:4]] == ["EVALSHA", "WAIT", "EVAL", "WAIT"]


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
async def test_looking_for_redis_writes_no_figures(valkey: Valkey) -> None:
    valkey.kill()
    async with counting(valkey.url) as visits:
        assert await visits.count() is None
        valkey.start()
        await eventually(lambda: visits.up)
        assert valkey.counter() == 0
        assert not valkey.client.keys("{counter}:processes") + valkey.client.keys("*:last:*")
        assert await figures_of(visits) == []


@pytest.mark.gen_test
async def test_all_keys_lie_in_the_counters_slot(valkey: Valkey) -> None:
    hostnames = ("web-1", "{other}", "}{", "a b\r\n<script>")
    for hostname in hostnames:
        async with counting(valkey.url, hostname) as visits:
            await visits.count()
            assert (hostname, 1) in await figures_of(visits)
    keys = valkey.client.keys()
    assert {key_slot(key) for key in keys} == {key_slot(KEY.encode())}
    assert len(keys) == 3 + len(hostnames), "a process has one of its own"
    commands = ProcessStatistics(KEY, "web-1").commands(1)
    plain = {str(command[1]) for command in commands}
    assert {key_slot(key.encode()) for key in plain} == {key_slot(KEY.encode())}


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
        (ours,) = valkey.client.keys("{counter}:process:*")
        for key in (ours, "{counter}:processes", "{counter}:spare"):
            assert DAY - PATIENCE < valkey.client.ttl(key) <= DAY
        gone = "{counter}:process:another"
        valkey.client.hset(gone, mapping={"hostname": "gone", "visits": 7})
        valkey.client.expire(gone, 2 * 60 * 60)
        valkey.client.zadd("{counter}:processes", {"another": time.time() - DAY + 60})
        assert await figures_of(visits) == [("gone", 7), ("web-1", 1)]
        async with reading(visits) as reader:
            seen = (await reader.read()).replicas[0].seen
            assert 0 <= seen - 22 * 60 * 60 < PATIENCE

        valkey.client.pexpire(gone, 1)
        await eventually(lambda: not valkey.client.exists(gone))
        assert await figures_of(visits) == [("web-1", 1)]
        assert valkey.client.ttl("counter") == -1, "the counter is never dropped"


@pytest.mark.gen_test
async def test_names_of_processes_not_seen_for_a_day_go_though_nobody_watches(
    valkey: Valkey,
) -> None:
    names, now = "{counter}:processes", time.time()
    valkey.client.zadd(names, {f"old-{i}": now - DAY - 1 - i for i in range(5000)})
    valkey.client.zadd(names, {"of-today": now - DAY + 99})
    async with counting(valkey.url) as visits:
        await visits.count()
    kept = valkey.client.zrange(names, 0, -1)
    assert kept[0] == b"of-today"
    assert len(kept) == 2


def test_a_process_is_marked_once_in_a_second_of_the_clock_also_when_that_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([5.2, 5.9, 6.05, 6.2, 7.3, 3.0])
    monkeypatch.setattr(statistics, "time", SimpleNamespace(time=lambda: next(clock)))
    one = ProcessStatistics(KEY, "web-1")
    assert [one.is_due() for _ in range(6)] == [True, False, False, True, True, True]


# Faults in these keys.


def processes_key(client: redis.Redis) -> Any:
    return client.keys("{counter}:process:*")[0]


def permit(client: redis.Redis, **rules: Any) -> None:
    client.acl_setuser("default", enabled=True, **rules)


AT_MOST_ONCE = "counting at most once, as Redis refuses EVALSHA: "
NOT_KEPT = "not all that stands beside the counter can be kept: "

#: What goes wrong once a visit has counted, and how the log says so; None: it mends itself.
FAULTS: dict[str, tuple[Callable[[redis.Redis], object], str | None]] = {
    "what the process keeps is of another type": (
        lambda client: client.set(processes_key(client), "x"),
        NOT_KEPT + "WRONGTYPE",
    ),
    "what the process keeps is no token": (
        lambda client: client.hset(processes_key(client), "token", "x"),
        None,
    ),
    "spare numbers of another type": (
        lambda client: (client.delete("{counter}:spare"), client.rpush("{counter}:spare", "x")),
        NOT_KEPT + "WRONGTYPE",
    ),
    "spare numbers that are none": (lambda client: client.set("{counter}:spare", "x y"), None),
    "names of another type": (
        lambda client: client.set("{counter}:processes", "x"),
        NOT_KEPT + "WRONGTYPE",
    ),
    "a history of another type": (
        lambda client: client.set("{counter}:last:5m", "x"),
        NOT_KEPT + "WRONGTYPE",
    ),
    "a history that is none": (
        lambda client: [
            client.hset("{counter}:last:5m", mapping={str(slot): value for slot in range(150)})
            for value in ("x", "9" * 15, "1=2 3", f"{int(time.time()) // 2 * 2} =x =9e99")
        ],
        None,
    ),
    "a mark that is none": (
        lambda client: client.hset(processes_key(client), "marked", "9 x"),
        None,
    ),
    "all of it gone": (lambda client: client.delete(*client.keys("{counter}*")), None),
    "no permission for the keys": (
        lambda client: permit(client, reset_keys=True, keys=["counter"]),
        AT_MOST_ONCE + "NOPERM",
    ),
    "no permission for scripts": (
        lambda client: permit(client, commands=["-evalsha"]),
        AT_MOST_ONCE + "NOPERM .*'evalsha' command",
    ),
    "no permission to keep a token": (
        lambda client: permit(client, commands=["-hset"]),
        AT_MOST_ONCE + ".*'hset' command",
    ),
    "no permission for the names": (
        lambda client: permit(client, commands=["-zadd"]),
        NOT_KEPT + ".*'zadd' command",
    ),
    "no permission to see the time": (
        lambda client: permit(client, commands=["-time"]),
        NOT_KEPT + ".*'time' command",
    ),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_beside_the_counter_costs_no_visit_its_number(
    valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    caplog.set_level("WARNING", logger="friendlyhello.visits")
    async with counting(valkey.url) as visits:
        await visits.start(PATIENCE)
        assert await visits.count() == 1
        inject, said = FAULTS[fault]
        inject(valkey.client)
        monkeypatch.setattr(statistics, "MARK_EVERY", ALWAYS)
        connections = valkey.client.info("stats")["total_connections_received"]
        numbers = [await visits.count() for _ in range(3)]
        waves = [asyncio.create_task(visits.count()) for _ in range(50)]
        numbers += await asyncio.gather(*waves)
        first = numbers[0]
        assert first is not None
        assert numbers == list(range(first, first + 53))
        assert visits.up
        assert valkey.client.info("stats")["total_connections_received"] == connections
        assert visits.exactly_once == (said is None or not said.startswith(AT_MOST_ONCE))
    lines = counters_lines(caplog)
    assert {level for level, _ in lines} <= {"WARNING"}
    texts = [text for _, text in lines]
    if said is not None and said.startswith(AT_MOST_ONCE):
        assert re.match(said, texts.pop(0))
        # Most of it plain commands meet too.
        said = None if "'evalsha'" in said else NOT_KEPT + "(HSET|EXPIRE): NOPERM"
    assert len(texts) == (said is not None), texts
    for text in texts:
        assert re.match(str(said), text), text


@pytest.mark.gen_test
@pytest.mark.parametrize("error", [b"-OOM command not allowed", b"-ASK 6680 127.0.0.1:1", b"-"])
async def test_an_error_for_the_figures_alone_costs_no_visit_its_number(
    fake: FakeRedis, error: bytes
) -> None:
    fake.scripts_refused = REFUSAL
    fake.figure = error + b"\r\n"
    async with counting(fake.url) as visits:
        assert [await visits.count() for _ in range(3)] == [1, 2, 3]
        assert len(fake.connections) == 1


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
async def test_figures_that_are_not_answered_end_with_the_deadline(fake: FakeRedis) -> None:
    fake.scripts_refused = REFUSAL
    fake.figure = b""
    async with counting(fake.url, timeout=1) as visits:
        assert await within(1, visits.count()) is None
        fake.heal()
        await eventually(lambda: visits.up)
        assert await visits.count() == 2, "it was not sent again"


# Labels.


@pytest.mark.gen_test
@pytest.mark.parametrize("scripts", [True, False])
async def test_labels_are_written_with_the_visits_by_script_or_without(
    scripts: bool, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MARK_EVERY", ALWAYS)  # the refused script has been a mark, too
    labels = {"zone": "eu-1", "rule": "a=b=", "place": "Köln"}
    if not scripts:
        valkey.client.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
    async with counting(valkey.url, labels=labels) as visits, reading(visits) as reader:
        for _ in range(2):  # without scripts they are written after the reply
            assert await visits.count()
        assert visits.exactly_once is scripts
        (found,) = (await reader.read()).replicas
    assert found.labels == labels


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (None, {}),  # an older version's
        ("", {}),
        ("a=1,b=,c", {"a": "1", "b": ""}),
        (b"\xff=\xff", {"\ufffd": "\ufffd"}),
    ],
)
async def test_labels_of_another_version_are_read_as_far_as_they_go(
    text: str | bytes | None, labels: dict[str, str], valkey: Valkey
) -> None:
    key = "{counter}:process:other"
    valkey.client.zadd("{counter}:processes", {"other": time.time()})
    valkey.client.hset(key, mapping={"hostname": "web-1", "visits": 7})
    if text is not None:
        valkey.client.hset(key, "labels", text)
    valkey.client.expire(key, DAY)
    async with counting(valkey.url) as visits, reading(visits) as reader:
        (found,) = (await reader.read()).replicas
    assert (found.visits, found.labels) == (7, labels)


# Faults.


@contextlib.asynccontextmanager
async def telling(visits: Visits, kinds: list[str]) -> AsyncIterator[list[str]]:
    """Tell them until the end of the context, which is given one more item at each look."""
    looks: list[str] = []

    def look() -> list[str]:
        looks.append("look")
        return list(kinds)

    visits.start_telling(look)
    yield looks


async def faults_are(reader: StatisticsReader, expected: dict[str, list[str]]) -> None:
    found: dict[str, list[str]] = {}
    deadline = time.monotonic() + PATIENCE
    while found != expected:
        assert time.monotonic() < deadline, found
        with contextlib.suppress(OSError, redis.RedisError):
            found = {one.hostname: [*one.faults] for one in (await reader.read()).replicas}
        await asyncio.sleep(0.005)


@pytest.mark.gen_test
async def test_faults_are_told_without_a_visit_and_taken_back_and_change_no_figure(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.telling.MARK_EVERY", 0.01)
    kinds: list[str] = []
    async with (
        counting(valkey.url, "web-1") as well,
        counting(valkey.url, "web-2") as sick,
        reading(well) as reader,
        telling(sick, kinds) as looks,
    ):
        assert await well.count() == 1
        await faults_are(reader, {"web-1": [], "web-2": []})
        kinds[:] = ["sick", "unready"]
        await faults_are(reader, {"web-1": [], "web-2": ["sick", "unready"]})
        assert [await sick.count() for _ in range(3)] == [2, 3, 4]
        kinds[:] = ["dead"]
        await faults_are(reader, {"web-1": [], "web-2": ["dead"]})
        assert await figures_of(well) == [("web-1", 1), ("web-2", 3)]
        valkey.kill()
        kinds.clear()
        looks.clear()
        await eventually(lambda: len(looks) > 2)  # so it could not take them back
        valkey.start()
        await faults_are(reader, {"web-1": [], "web-2": []})
    keys = valkey.client.keys()
    assert {key_slot(key) for key in keys} == {key_slot(KEY.encode())}
    assert all(0 < valkey.client.ttl(key) <= DAY for key in keys if key != b"counter")


@pytest.mark.gen_test
async def test_a_replica_that_is_well_holds_no_connection_to_tell_it(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.telling.MARK_EVERY", 0.01)
    kinds = ["sick"]
    async with counting(valkey.url) as visits, reading(visits) as reader, telling(visits, kinds):
        await faults_are(reader, {"web-1": ["sick"]})
        before = len(valkey.client.client_list())
        kinds.clear()
        await eventually(lambda: len(valkey.client.client_list()) == before - 1)


@pytest.mark.gen_test
async def test_faults_that_redis_refuses_are_one_log_line(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("counter.telling.MARK_EVERY", 0.01)
    valkey.client.execute_command("ACL", "SETUSER", "default", "-hsetnx")
    async with counting(valkey.url) as visits, telling(visits, ["sick"]) as looks:
        await eventually(lambda: len(looks) > 3)
        assert await visits.count() == 1
    (line,) = (one.getMessage() for one in caplog.records if "/live" in one.getMessage())
    assert line.startswith("/live cannot show all of this replica, as Redis refuses HSETNX: ")


# Reading.


@pytest.mark.gen_test
async def test_figures_that_cannot_be_read_leave_the_total(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits, reading(visits) as reader:
        assert (await reader.read()).total == 0
        await visits.count()
        valkey.client.zadd("{counter}:processes", {"another": time.time(), "a list": time.time()})
        valkey.client.hset("{counter}:process:another", "colour", "blue")
        valkey.client.rpush("{counter}:process:a list", "x")
        figures = await reader.read()
        assert (figures.total, [one.hostname for one in figures.replicas]) == (1, ["web-1"])
        valkey.client.set("{counter}:processes", "x")
        figures = await reader.read()
        assert (figures.total, list(figures.replicas)) == (1, [])


@pytest.mark.gen_test
async def test_of_too_many_processes_those_seen_last_are_read(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.reading.MAX_PROCESSES", 2)
    for i in range(4):
        key = f"{{counter}}:process:{i}"
        valkey.client.zadd("{counter}:processes", {f"{i}": 1_000 - i})
        valkey.client.hset(key, mapping={"hostname": f"web-{i}", "visits": i})
        valkey.client.expire(key, DAY)
    async with counting(valkey.url) as visits, reading(visits) as reader:
        found = (await reader.read()).replicas
    assert [(one.hostname, one.visits) for one in found] == [("web-0", 0), ("web-1", 1)]


@pytest.mark.gen_test
async def test_a_look_that_takes_too_long_is_given_up_and_the_next_one_succeeds(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.reading.READ_TIMEOUT", PATIENCE)
    async with counting(valkey.url) as visits, reading(visits) as reader:
        await reader.read()
        kept = reader._opened
        await reader.read()
        assert reader._opened is kept
        valkey.hang()
        monkeypatch.setattr("counter.reading.READ_TIMEOUT", 0.2)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await within(0.2, reader.read())
            assert reader._opened is None, "the way to Redis is asked anew"
        valkey.go_on()
        monkeypatch.setattr("counter.reading.READ_TIMEOUT", PATIENCE)
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


# Refused for a while.


@pytest.mark.gen_test
async def test_a_redis_that_runs_the_script_again_is_asked_to_after_a_while(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    permit(valkey.client, commands=["-evalsha"])
    async with counting(valkey.url) as visits:
        assert [await visits.count() for _ in range(2)] == [1, 2]
        assert not visits.exactly_once
        permit(valkey.client, commands=["+evalsha"])
        monkeypatch.setattr(delivery, "REFUSED_FOR", 0)
        assert [await visits.count() for _ in range(2)] == [3, 4]
        assert visits.exactly_once
    assert [text.partition(",")[0] for _, text in counters_lines(caplog)] == [
        *("counting at most once", "counting exactly once")
    ]
