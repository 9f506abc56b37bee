"""What a process writes of itself goes with its visits, and never costs one its number."""

import asyncio
import functools
import math
import re
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import redis
from redis.crc import key_slot

import config
import server
from config import Settings
from counter import KEY, Visits, process_key
from replicas import Figures, figures
from replicas.keys import DAY, HISTORIES
from tests.support import Caplog, Patch
from tests.support.counting import (
    ALWAYS,
    KEPT,
    assert_said,
    permit,
    reading,
    replica,
    sent_by_clients,
)
from tests.support.fake_redis import FakeRedis
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within
from watch import Metrics


async def figures_of(visits: Visits) -> list[tuple[str, int]]:
    with reading(visits) as reader:
        return [(one.hostname, one.visits) for one in (await reader.read()).replicas]


REFUSAL = b"-ERR unknown command 'EVALSHA'\r\n"


async def test_without_scripts_figures_go_with_a_visit(fake: FakeRedis, monkeypatch: Patch) -> None:
    monkeypatch.setattr(figures, "SIGN_EVERY", math.inf)
    fake.scripts_refused = REFUSAL
    async with replica(fake.url) as visits:
        assert await visits.count() == 1
        fake.figures.clear()
        with fake.held():
            first = asyncio.create_task(visits.count())
            await eventually(lambda: fake.figures)
            group = [asyncio.create_task(visits.count()) for _ in range(10)]
            await asyncio.sleep(0)
        assert [await first, *await asyncio.gather(*group)] == list(range(2, 13))
        assert [one.words[2:] for one in fake.figures] == [("visits", "2"), ("visits", "12")]
        assert [one.words[0] for one in fake.commands] == ["EVALSHA", "INCR", "INCR", "INCRBY"]


async def test_a_sign_is_one_command_more_once_a_second(valkey: Valkey, monkeypatch: Patch) -> None:
    clock = SimpleNamespace(now=1000.5, time=lambda: clock.now, monotonic=time.monotonic)
    monkeypatch.setattr(figures, "time", clock)
    async with replica(valkey.url) as visits:
        await visits.start(PATIENCE)
        with valkey.client.monitor() as monitor:
            for seconds in (0, 0, 0, 1, 0, -3, 0):  # it is set back, too
                clock.now += seconds
                assert await visits.count()
            words = [
                one for one in sent_by_clients(valkey, monitor) if one[0] in ("EVAL", "EVALSHA")
            ]
    signs = [one[0] for one in words if "{counter}:processes" in one]
    assert signs == ["EVAL", "EVALSHA", "EVALSHA"], "in full at first, so that it takes one try"
    assert len(words) - len(signs) == 7


@pytest.mark.usefixtures("often_probed")
async def test_looking_for_redis_writes_no_figures(valkey: Valkey) -> None:
    valkey.kill()
    async with replica(valkey.url) as visits:
        assert await visits.count() is None
        valkey.start()
        await eventually(lambda: visits.up)
        assert valkey.counter() == 0
        assert not valkey.client.keys("{counter}:processes") + valkey.client.keys("*:last:*")
        assert await figures_of(visits) == []


async def test_a_redis_that_has_lost_the_script_gets_it_again_with_the_next_visit(
    valkey: Valkey, monkeypatch: Patch, caplog: Caplog
) -> None:
    monkeypatch.setattr(figures, "SIGN_EVERY", math.inf)
    async with replica(valkey.url) as visits:
        own = visits._link._beside
        assert isinstance(own, Figures)
        assert await visits.count() == 1
        valkey.client.flushall()
        valkey.client.script_flush()
        own._second = -1.0  # another one has begun
        assert [await visits.count(), await visits.count()] == [1, 2]
        assert await figures_of(visits) == [("web-1", 3)]
    assert not caplog.records


async def test_what_replicas_count_adds_up(valkey: Valkey) -> None:
    async with (
        replica(valkey.url, "web-1") as one,
        replica(valkey.url, "<b>{web}\r\n2") as other,
        replica(valkey.url, "<b>{web}\r\n2") as its_second_process,
    ):
        before = time.time()
        for visits, times in ((one, 30), (other, 20), (its_second_process, 5)):
            await asyncio.gather(*(visits.count() for _ in range(times)))
            await visits.count()
        with reading(one) as reader:
            shown = await reader.read()
        assert shown.total == valkey.counter() == 58
        assert [(one.hostname, one.visits) for one in shown.replicas] == [
            ("<b>{web}\r\n2", 27),
            ("web-1", 31),
        ]
        after = time.time()
        # A replica gives a sign once a second.
        assert all(0 <= one.seen < after - before + 1.1 for one in shown.replicas)
        assert before - 1 < shown.time < after + 1


@pytest.mark.usefixtures("always_signed")  # the refused script has been a sign, too
@pytest.mark.parametrize("scripts", [True, False])
async def test_names_and_labels_are_written_by_script_or_without_whatever_bytes_they_have(
    valkey: Valkey, monkeypatch: Patch, scripts: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "caf\udce9")
    labels = {"zone": "eu-1", "rule": "a=b=", "place": "Köln"}
    settings = Settings(
        redis_url=valkey.url, redis_timeout=PATIENCE, version_label="\udce9", labels=labels
    )
    if not scripts:
        permit(valkey.client, "-eval", "-evalsha")
    visits = server.new_visits(settings, Metrics())
    for _ in range(2):  # without scripts they are written after the reply
        assert await visits.count()
    assert visits.exactly_once is scripts
    with reading(visits) as reader:
        (found,) = (await reader.read()).replicas
    assert (found.hostname, found.labels) == (config.host_name().replace("\udce9", "�"), labels)
    await visits.close()


async def test_what_a_process_has_written_is_dropped_after_a_day(valkey: Valkey) -> None:
    names, now = "{counter}:processes", time.time()
    valkey.client.zadd(names, {f"old-{i}": now - DAY - 1 - i for i in range(5000)})
    valkey.client.zadd(names, {"of-today": now - DAY + 99})
    async with replica(valkey.url) as visits:
        await visits.count()
        key = process_key(visits.process_id)
        for one, kept_for in ((key, KEPT), (names, DAY)):
            assert kept_for - PATIENCE < valkey.client.ttl(one) <= kept_for
        kept = valkey.client.zrange(names, 0, -1)
        assert kept == [b"of-today", visits.process_id.encode()], "though nobody watches"
        assert valkey.client.ttl("counter") == -1, "the counter is never dropped"


def write_history(value: str, client: redis.Redis) -> None:
    text = value.replace("NOW", f"{int(time.time()) // 2 * 2}")
    client.hset("{counter}:last:5m", mapping={str(slot): text for slot in range(150)})


def write_field(name: str, client: redis.Redis) -> None:
    client.hset(client.keys("{counter}:process:*")[0], name, "9 x")


NOT_KEPT = "Redis refuses some of the live page's figures: EVALSHA: "

#: What goes wrong once a visit has counted, and how the log says so; None: it mends itself.
FAULTS: dict[str, tuple[Callable[[redis.Redis], object], str | None]] = {
    "names of another type": (lambda client: client.set("{counter}:processes", "x"), "WRONGTYPE"),
    "a history of another type": (lambda client: client.set("{counter}:last:5m", "x"), "WRONGTYPE"),
    **{
        f"a history of {value}": (functools.partial(write_history, value), None)
        for value in ("x", "9" * 15, "1=2 3", "NOW =x =9e99")
    },
    **{
        f"what was {field} is none": (functools.partial(write_field, field), None)
        for field in ("marked", "started")
    },
    "names that have no time": (
        lambda client: client.zadd("{counter}:processes", {"a": math.inf, "b": -math.inf}),
        None,
    ),
    "no permission for the names": (lambda client: permit(client, "-zadd"), ".*'zadd'"),
    "no permission to see the time": (lambda client: permit(client, "-time"), ".*'time'"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_figures_touches_no_visit_and_no_token(
    valkey: Valkey, caplog: Caplog, monkeypatch: Patch, fault: str
) -> None:
    caplog.set_level("WARNING", logger="friendlyhello.visits")
    async with replica(valkey.url) as visits:
        await visits.start(PATIENCE)
        assert await visits.count() == 1
        await eventually(lambda: visits._lookout._asking is None or visits._lookout._asking.done())
        inject, said = FAULTS[fault]
        inject(valkey.client)
        monkeypatch.setattr(figures, "SIGN_EVERY", ALWAYS)
        connections = valkey.client.info("stats")["total_connections_received"]
        numbers = [await visits.count() for _ in range(3)]
        waves = [asyncio.create_task(visits.count()) for _ in range(50)]
        numbers += await asyncio.gather(*waves)
        assert numbers == list(range(2, 55))
        assert visits.up
        assert visits.exactly_once
        assert valkey.client.info("stats")["total_connections_received"] == connections
        assert valkey.client.hget(process_key(visits.process_id), "visits") == b"54"
        if said is None or "history" in fault:  # the rest is written all the same
            with reading(visits) as reader:
                shown = await reader.read(["1h"])
            assert ("web-1", 54) in [(one.hostname, one.visits) for one in shown.replicas]
            assert sum(one[1][""] for one in shown.moments["1h"]) >= 53
            _, before = valkey.client.hget(process_key(visits.process_id), "marked").split()
            assert int(before) > 1
    assert_said(caplog, said and NOT_KEPT + said)


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize(
    ("error", "is_refusal"),
    [
        *((b"-OOM command not allowed", False), (b"-ASK 6680 127.0.0.1:1", False)),
        *((b"-TRYAGAIN Multiple keys", False), (b"-NOPERM this user", True), (b"-", True)),
    ],
)
async def test_an_error_beside_costs_nobody_and_a_refusal_is_one_log_line(
    fake: FakeRedis, error: bytes, scripts: bool, is_refusal: bool, caplog: Caplog
) -> None:
    fake.scripts_refused = b"" if scripts else REFUSAL
    fake.figure = error + b"\r\n"
    async with replica(fake.url) as visits:
        assert [await visits.count() for _ in range(3)] == [1, 2, 3]
        assert visits.exactly_once is scripts
        assert len(fake.connections) == 1
    assert len([one for one in caplog.messages if "figures" in one]) == is_refusal


@pytest.mark.usefixtures("often_probed")
async def test_figures_that_are_not_answered_end_with_the_deadline(fake: FakeRedis) -> None:
    async with replica(fake.url, timeout=1) as visits:
        fake.figure = b""
        assert await within(1, visits.count()) is None
        fake.heal()
        await eventually(lambda: visits.up)
        assert await visits.count() == 2, "what was given is not given again"


@pytest.mark.usefixtures("always_signed")
async def test_fields_have_the_names_by_which_an_older_version_reads_them(valkey: Valkey) -> None:
    async with replica(valkey.url, version="1.0", labels={"zone": "a"}) as visits:
        assert [await visits.count(), await visits.count()] == [1, 2]
        kept = valkey.client.hgetall(process_key(visits.process_id))
        now = time.time()
        slots = [valkey.client.hgetall(f"{{counter}}:last:{last}") for last in HISTORIES]
        keys = {*valkey.client.keys()}
        assert {key_slot(key) for key in keys} == {key_slot(KEY.encode())}  # type: ignore[arg-type]
        for _ in range(100):
            assert await visits.count()
        assert {*valkey.client.keys()} == keys, "what is written does not grow with visits"
        assert {*valkey.client.hkeys(process_key(visits.process_id))} == kept.keys()
    plain = Figures("web-1").commands(process_key("a"), 0, 1, scripts=False)
    slots_of_plain = {key_slot(one.split(b"\r\n")[4]) for one in plain}
    assert slots_of_plain == {key_slot(KEY.encode())}
    assert kept.pop(b"token")
    assert re.fullmatch(rb"[0-9]{10}\.[0-9]{1,6} 1", kept[b"marked"])  # type: ignore[arg-type]
    assert re.fullmatch(rb"[0-9]{10}\.[0-9]{3}", kept[b"started"])  # type: ignore[arg-type]
    for field in (b"marked", b"started"):
        assert abs(float(kept.pop(field).split()[0]) - now) < PATIENCE
    own = {b"hostname": b"web-1", b"version": b"1.0", b"labels": b"zone=a", b"visits": b"2"}
    assert kept == own
    for (step, _), found in zip(HISTORIES.values(), slots, strict=True):
        (slot,) = found.values()
        assert re.fullmatch(rb"[0-9]{10} 1\.0=1", slot)  # type: ignore[arg-type]
        assert int(slot.split()[0]) % step == 0
