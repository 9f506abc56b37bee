"""Each number belongs to one visit, and none goes missing, whatever becomes of connections."""

import asyncio
import re
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from counter import Visits, process_key
from counter.batches import ANSWERS_PER_TURN
from counter.connection import ASKING, RedisConnection, Request
from counter.link import MAX_BACKOFF
from tests.support import ROOT, Caplog, Patch
from tests.support.counting import KEPT, counting
from tests.support.fake_redis import FakeRedis, hang_up
from tests.support.page import counters_lines, serving
from tests.support.proxy import Proxy
from tests.support.raw_http import VISIT
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within

SPARES = "{counter}:spares"


async def test_a_visit_whose_reply_is_lost_gets_the_number_it_was_given(fake: FakeRedis) -> None:
    async with counting(fake.url) as visits:
        assert await visits.count() == 1
        fake.answer = hang_up
        lost = asyncio.create_task(visits.count())
        await eventually(lambda: len(fake.connections) >= 4)
        fake.heal()
        assert await lost == 2
        assert fake.counter == 2
        tokens = {one.token for one in fake.commands if one.counts}
        assert len(tokens) == 2
        assert await visits.count() == 3


async def test_it_is_sent_again_at_once_and_then_less_and_less_often(fake: FakeRedis) -> None:
    async with counting(fake.url, timeout=2) as visits:
        assert await visits.count() == 1
        fake.answer = hang_up
        assert await within(2, visits.count()) is None
        sent = [one for one in fake.commands if one.visits][1:]
        assert 3 < len(sent) < 2 / MAX_BACKOFF + 10


async def test_a_redis_that_has_forgotten_the_script_costs_one_round_trip(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits:
        for number in range(1, 11):
            valkey.client.script_flush()
            assert await visits.count() == number
        assert valkey.commands("evalsha") == valkey.commands("eval") == 10


@pytest.mark.parametrize("resets", [True, False])
async def test_a_visitor_who_resets_leaves_the_number(valkey: Valkey, resets: bool) -> None:
    async with serving(valkey.url) as visitor:
        assert await visitor.visit() == 1
        port = int(visitor.url.rpartition(":")[2].strip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        valkey.hang()
        writer.write(VISIT)
        await eventually(lambda: visitor.visits._link.is_busy)
        writer.transport.abort() if resets else writer.write_eof()
        await asyncio.sleep(0.05)
        valkey.go_on()
        if not resets:
            assert (await reader.read()).endswith(b"<b>Visits:</b> 2")
            writer.close()
        await eventually(lambda: valkey.counter() == 2)
        assert [await visitor.visit() for _ in range(2)] == ([2, 3] if resets else [3, 4])


async def test_a_visitor_who_goes_before_the_number_is_shown_leaves_it(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits:
        valkey.hang()
        batch = [asyncio.create_task(visits.count()) for _ in range(300)]
        await asyncio.sleep(0)
        goes = batch[ANSWERS_PER_TURN + 50]
        batch[0].add_done_callback(lambda _: goes.cancel() and None)
        batch[2].cancel()
        valkey.go_on()
        numbers = await asyncio.gather(*batch, return_exceptions=True)
        shown = [number for number in numbers if isinstance(number, int)]
        assert len(shown) == 298
        shown += [await visits.count() or 0 for _ in range(2)]
        assert sorted(shown) == list(range(1, 301))
        assert await visits.count() == 301


async def test_numbers_that_came_too_late_are_the_next_visits(valkey: Valkey) -> None:
    async with counting(valkey.url, timeout=1) as visits, counting(valkey.url) as other:
        assert await visits.count() == 1
        valkey.hang()
        late = [asyncio.create_task(visits.count()) for _ in range(3)]
        assert await asyncio.gather(*late) == [None] * 3
        valkey.go_on()  # now it counts them
        await eventually(lambda: visits.up)
        assert valkey.counter() in (2, 4)  # the first of them may have gone alone
        numbers = [await other.count(), await visits.count(), await other.count()]
        assert numbers == [2, 3, 4]
        assert await other.count() == 5


async def test_a_visitor_who_goes_as_the_number_comes_leaves_it(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits:
        assert await visits.count() == 1
        waiter = visits._batches.add()
        assert waiter is not None
        with patch.object(visits._batches, "add", lambda: waiter):
            visit = asyncio.create_task(visits.count())
            waiter.add_done_callback(lambda _: visit.cancel())
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await visit
        assert await visits.count() == 2


async def test_numbers_that_come_back_while_nobody_visits_go_to_others(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits, counting(valkey.url) as other:
        assert [await visits.count() for _ in range(4)] == [1, 2, 3, 4]
        for number in (2, 3):
            visits.give_back(number)
        await eventually(
            lambda: valkey.client.zrange(SPARES, 0, -1, withscores=True) == [(b"2", 3)]
        )
        assert [await other.count() for _ in range(3)] == [2, 3, 5]
        assert (visits.shown, other.shown) == (2, 3)


async def test_a_number_of_a_plain_command_is_not_given_back(fake: FakeRedis) -> None:
    """Nobody knows which token would give it: 9 and 10 would be shown twice."""
    async with counting(fake.url) as visits:
        numbers = await asyncio.gather(*(visits.count() for _ in range(10)))
        assert numbers == list(range(1, 11))
        fake.scripts_refused = b"-NOPERM no permission\r\n"
        plain = [await visits.count() for _ in range(2)]
        assert plain == [11, 12]
        for number in plain:
            visits.give_back(number or 0)
        assert visits.shown == 12
        fake.scripts_refused = b""
        visits._delivery._refused_at = 0.0
        assert [await visits.count() for _ in range(2)] == [13, 14]
        assert not any(one.token and one.is_giving_back for one in fake.commands)


async def test_a_process_that_ends_leaves_its_numbers_to_the_others(valkey: Valkey) -> None:
    async with counting(valkey.url, timeout=1) as other:
        assert await other.count() == 1
        with Proxy([valkey.path]) as proxy:
            visits = Visits(f"redis://127.0.0.1:{proxy.port}", timeout=PATIENCE)
            assert await visits.count() == 2
            proxy.to_client.black_hole = True
            lost = asyncio.create_task(visits.count())
            await eventually(lambda: valkey.counter() == 3)
            proxy.heal()
            await visits.close()
            assert await lost is None
        assert [await other.count(), await other.count()] == [3, 4]


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("away", ["hung", "gone", "well"])
async def test_an_end_without_redis_says_so_soon(valkey: Valkey, caplog: Caplog, away: str) -> None:
    visits = Visits(valkey.url, timeout=PATIENCE if away == "well" else 1)
    assert await visits.count() == 1
    if away == "well":  # it has been given all its numbers, and probes in vain
        valkey.kill()
        await eventually(lambda: visits._delivery.tokens._sequence >= 3)
    else:
        valkey.hang()
        assert await visits.count() is None
        if away == "gone":
            valkey.kill()
    caplog.clear()
    await within(0.5, visits.close())
    said = [("WARNING", text.partition(": ")[0]) for _, text in counters_lines(caplog)]
    owes = ("WARNING", "numbers that were shown to nobody may be missing")
    assert said == ([] if away == "well" else [owes])


async def test_the_record_does_not_grow_and_is_kept(valkey: Valkey, monkeypatch: Patch) -> None:
    """Else Redis would forget the newest token of a process after a day, and count it again."""
    monkeypatch.setattr("counter.probing.PROBE_EVERY", 0.02)
    monkeypatch.setattr("counter.lookout.RENEW_EVERY", 0.05)
    async with counting(valkey.url) as visits:
        for _ in range(300):
            await visits.count()
        record = process_key(visits.process_id)
        assert {one.decode() for one in valkey.client.scan_iter()} == {"counter", record}
        assert valkey.client.hgetall(record) == {b"token": b"300 300 1", b"visits": b"300"}
        for _ in range(3):
            valkey.client.expire(record, 10)
            async with asyncio.timeout(PATIENCE):
                while valkey.client.ttl(record) <= 10:
                    assert await visits.count() is not None
                    await asyncio.sleep(0.01)
        assert KEPT - PATIENCE < valkey.client.ttl(record) <= KEPT


def least(once: str) -> list[str]:
    page = (ROOT / "docs/counting.md").read_text()
    found = re.search(rf"{once}[^`]*:\n\n```\n(.*)\n```", page)
    assert found
    return found[1].split()


def allow(valkey: Valkey, *words: str) -> str:
    valkey.client.execute_command("ACL SETUSER", "hello", *words)
    return f"unix://hello:secret@{valkey.path}"


@pytest.mark.parametrize("once", ["exactly once", "at most once"])
async def test_the_least_permissions_are_enough(valkey: Valkey, caplog: Caplog, once: str) -> None:
    caplog.set_level("WARNING", logger="friendlyhello.visits")
    async with counting(allow(valkey, *least(once))) as visits:
        await visits.start(PATIENCE)
        assert [await visits.count() for _ in range(3)] == [1, 2, 3]
        assert visits.exactly_once == (once == "exactly once")
        assert ("evalsha" in visits.refusal) == (once == "at most once")
    said = [text.partition(":")[0] for _, text in counters_lines(caplog)]
    refused = ["counting at most once, as Redis refuses the script"]
    assert said == ([] if once == "exactly once" else refused)


@pytest.mark.parametrize("word", [word for word in least("exactly once")[4:] if word != "+incrby"])
async def test_without_a_permission_visits_count_at_most_once(valkey: Valkey, word: str) -> None:
    first = 10**15 if word == "+get" else 20
    valkey.client.set("counter", first)
    async with counting(allow(valkey, *least("exactly once"), "+incr")) as visits:
        unshown = await visits.count()
        assert unshown == first + 1
        if word != "+get":  # which is needed past 10^14 alone
            valkey.client.zadd(SPARES, {"3": 5, "9": 9})
        visits.give_back(unshown)
        before = valkey.client.zrange(SPARES, 0, -1, withscores=True)
        allow(valkey, word.replace("+", "-"))
        valkey.client.script_flush()
        numbers = [await visits.count() for _ in range(3)]
        lost = word == "+get"  # it is needed once the number is taken
        assert numbers == [first + lost + n for n in (2, 3, 4)]
        assert not visits.exactly_once
        assert f"'{word[1:]}'" in visits.refusal
        # Nothing of the script was done.
        assert valkey.client.zrange(SPARES, 0, -1, withscores=True) == before


@pytest.mark.parametrize("forgotten", [False, True])
async def test_asking_goes_before_each_command(monkeypatch: Patch, forgotten: bool) -> None:
    written: list[bytes] = []
    writer = SimpleNamespace(transport=SimpleNamespace(write=written.append))
    monkeypatch.setattr("counter.connection.take_over", lambda redis, protocol: writer)
    connection = RedisConnection(Redis(), asking=True)
    request = Request(b"SCRIPT", in_full=b"FULL", beside=[b"BESIDE"], wait=b"WAIT")
    answer = asyncio.create_task(connection.ask(request))
    await asyncio.sleep(0)
    if forgotten:
        connection.data_received(b"+OK\r\n-NOSCRIPT\r\n:0\r\n")
    sent = ASKING + b"SCRIPTWAIT" + (ASKING + b"FULLWAIT" if forgotten else b"")
    assert b"".join(written) == sent
    connection.data_received(b"+OK\r\n:7\r\n:1")
    connection.data_received(b"\r\n")
    assert await answer == [b":7", b":1"]
    assert connection.is_sound


async def test_it_counts_on_where_an_older_version_did(valkey: Valkey, caplog: Caplog) -> None:
    caplog.set_level("WARNING")
    valkey.client.set("counter", 41)
    valkey.client.set("{counter}:spare", "7 2 12 1 ", ex=86400)
    old = {"token": "12 41 3", "visits": 41, "hostname": "web-1", "marked": "1764220000.5 30"}
    valkey.client.hset("{counter}:process:old", mapping=old)  # type: ignore[arg-type]
    async with counting(valkey.url) as visits:
        await visits.start(PATIENCE)
        assert [await visits.count() for _ in range(3)] == [42, 43, 44]
        assert visits.exactly_once
    assert not caplog.records
    assert valkey.client.hget("{counter}:process:old", "token") == b"12 41 3"
