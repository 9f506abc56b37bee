"""What a process has to say of itself is told at once, and costs no visit and no stop its time."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import redis

from counter import process_key
from replicas import Reader, Record, figures
from replicas.telling import GOODBYE_TIMEOUT
from tests.support import Caplog, Patch
from tests.support.counting import KEPT, permit, reading, replica, replicas_in, telling
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within


@pytest.fixture
def often(monkeypatch: Patch) -> None:
    """Let each group be a sign, and what there is to tell be looked for again and again."""
    monkeypatch.setattr(figures, "SIGN_EVERY", 0.01)
    monkeypatch.setattr("replicas.telling.SIGN_EVERY", 0.01)


async def told(reader: Reader, hostname: str, is_so: Callable[[Record], object]) -> Record:
    """Wait until a process has told something; Redis may come back meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError, redis.RedisError):
                for one in (await reader.read()).records:
                    if one.hostname == hostname and is_so(one):
                        return one
            await asyncio.sleep(0.005)


async def test_a_stop_is_told_at_once_and_at_its_end_by_who_is_known(
    valkey: Valkey, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("replicas.telling.SIGN_EVERY", 10 * PATIENCE)  # not by the next look
    monkeypatch.setattr("replicas.telling.GOODBYE_TIMEOUT", PATIENCE)
    async with replica(valkey.url) as other, telling(other, is_draining=lambda: True):
        await other.start(PATIENCE)  # it counts no visit, so nobody knows it
        with reading(other) as reader:
            is_draining: list[str] = []
            async with (
                replica(valkey.url, "web-2") as visits,
                telling(visits, is_draining=lambda: bool(is_draining)) as one,
            ):
                assert await visits.count() == 1
                assert (await told(reader, "web-2", bool)).state == ""
                is_draining.append("SIGTERM")
                one.look()
                await told(reader, "web-2", lambda one: one.state == "draining")
                assert await visits.count() == 2, "it counts as before"
            (record,) = (await reader.read()).records
            assert (record.state, record.visits) == ("gone", 2)
    await eventually(lambda: len(valkey.client.client_list()) == 1)
    assert valkey.client.zrange("{counter}:processes", 0, -1) == [visits.process_id.encode()]


async def test_a_goodbye_waits_for_a_redis_that_hangs_no_longer_than_it_may(valkey: Valkey) -> None:
    async with replica(valkey.url) as visits:
        assert await visits.count() == 1
        async with telling(visits) as one:
            valkey.hang()
            begun = time.monotonic()
            await within(GOODBYE_TIMEOUT, one.close())
            assert time.monotonic() - begun > 0.9 * GOODBYE_TIMEOUT
            valkey.go_on()


@pytest.mark.usefixtures("often_probed")
async def test_times_without_redis_are_told_once_it_is_back_the_last_ones(valkey: Valkey) -> None:
    before = [figures.Away(number, number, "of before") for number in range(figures.MAX_OUTAGES)]

    def is_told(one: Record) -> bool:  # those of before may be told first
        return bool(one.away) and "valkey.sock" in one.away[-1].reason

    async with replica(valkey.url) as visits, telling(visits):
        assert await visits.count() == 1
        visits._link._beside.away.extend(before)
        valkey.kill()
        begun = time.time()
        assert await visits.count() is None
        valkey.start()
        ended = time.time()
        with reading(visits) as reader:
            *others, last = (await told(reader, "web-1", is_told)).away
        assert begun - 0.1 <= last.start <= last.end <= time.time() + 0.1
        assert last.end >= ended - 0.1
        assert [one.reason for one in others] == ["of before"] * (figures.MAX_OUTAGES - 1)


@pytest.mark.usefixtures("often")
async def test_when_a_process_began_is_told_and_follows_the_clock(
    valkey: Valkey, monkeypatch: Patch
) -> None:
    """Redis's own cannot be set here, so ages are: the difference is the same."""
    hour, sick = 3600.0, list[str]()
    clock = SimpleNamespace(older=0.0, time=time.time)
    clock.monotonic = lambda: time.monotonic() + clock.older
    monkeypatch.setattr(figures, "time", clock)
    async with replica(valkey.url) as visits, telling(visits, lambda: sick):
        begun = time.time()

        async def is_told(hours: int) -> None:
            ago = pytest.approx(begun - hours * hour, abs=PATIENCE)
            with reading(visits) as reader:
                await told(reader, "web-1", lambda one: one.faults == sick and one.started == ago)

        clock.older = hour
        assert await visits.count()
        await is_told(1)  # not when it first counted
        sick.append("sick")
        await is_told(1)
        clock.older = 2 * hour
        await is_told(2)  # without a visit
        sick.clear()
        await is_told(2)
        clock.older = 3 * hour
        await asyncio.sleep(0.02)
        assert await visits.count()
        await is_told(3)


@pytest.mark.usefixtures("often")
async def test_faults_are_told_without_a_visit_and_taken_back(valkey: Valkey) -> None:
    kinds, looks = list[str](), list[str]()
    async with (
        replica(valkey.url, "web-1") as well,
        replica(valkey.url, "web-2") as sick,
        telling(sick, lambda: looks.append("look") or list(kinds)),
    ):
        reader = Reader(well.new_connector())
        assert await well.count() == 1
        await told(reader, "web-2", lambda one: not one.faults)
        kinds[:] = ["sick", "unready"]
        await told(reader, "web-2", lambda one: one.faults == ["sick", "unready"])
        assert [await sick.count() for _ in range(3)] == [2, 3, 4]
        kinds[:] = ["dead"]
        await told(reader, "web-2", lambda one: one.faults == ["dead"])
        shown = [(one.hostname, one.visits, one.faults) for one in replicas_in(await reader.read())]
        assert shown == [("web-1", 1, []), ("web-2", 3, ["dead"])]
        kinds.clear()  # one that is well holds no connection to tell it
        # Those of the two counters, of the reader, and of the test.
        await eventually(lambda: len(valkey.client.client_list()) == 4)
        kinds[:] = ["dead"]
        await told(reader, "web-2", lambda one: one.faults == ["dead"])
        valkey.kill()
        kinds.clear()
        looks.clear()
        await eventually(lambda: len(looks) > 5)  # so it could not take them back
        valkey.start()
        await told(reader, "web-2", lambda one: not one.faults)
        reader.close()
    keys = valkey.client.keys()
    assert all(0 < valkey.client.ttl(key) <= KEPT for key in keys if b":process" in key)


@pytest.mark.usefixtures("often")
async def test_what_redis_refuses_is_one_log_line_and_the_rest_is_told(
    valkey: Valkey, caplog: Caplog
) -> None:
    looks: list[str] = []
    permit(valkey.client, "-hsetnx", "-time")
    async with (
        replica(valkey.url) as visits,
        telling(visits, lambda: looks.append("look") or ["sick"]),
    ):
        await eventually(lambda: len(looks) > 12)
        assert await visits.count() == 1
        assert valkey.client.hget(process_key(visits.process_id), "faults") == b"sick"
        # By this machine's time, as Redis does not tell its own.
        assert abs(valkey.client.zscore("{counter}:processes", visits.process_id) - time.time()) < 9
    (line,) = (one for one in caplog.messages if "/live" in one)
    assert line.startswith("/live cannot show all of this replica, as Redis refuses HSETNX: ")
