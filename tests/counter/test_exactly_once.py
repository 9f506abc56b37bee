"""Each number belongs to one visit, and none goes missing, whatever becomes of connections."""

import asyncio
import re

import pytest

from counter import Visits, process_key
from counter.batches import ANSWERS_PER_TURN
from counter.link import MAX_BACKOFF
from tests.counter.test_tokens import COMMANDS
from tests.support import ROOT, Caplog, Patch
from tests.support.counting import KEPT, counting, permit
from tests.support.fake_redis import FakeRedis, half
from tests.support.page import counters_lines, serving
from tests.support.proxy import Proxy
from tests.support.raw_http import VISIT
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within

SPARES = "{counter}:spares"


async def test_a_visit_whose_reply_is_lost_is_sent_again_for_the_number_it_was_given(
    fake: FakeRedis,
) -> None:
    """At once, and then less and less often."""
    async with counting(fake.url, timeout=2) as visits:
        assert await visits.count() == 1
        fake.answer = half
        lost = asyncio.create_task(visits.count())
        await eventually(lambda: len(fake.connections) >= 4)
        fake.heal()
        assert await lost == 2
        assert fake.counter == len(fake.visits()) == 2
        fake.answer, before = half, len(fake.commands)
        assert await within(2, visits.count()) is None
        sent = [one for one in fake.commands[before:] if one.visits]
        assert 3 < len(sent) < 2 / MAX_BACKOFF + 10


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


async def test_visitors_who_go_before_or_as_the_number_comes_leave_it(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits:

        async def visit_first() -> int | None:
            number = await visits.count()
            batch[5].cancel()  # which has its number, and not yet its turn
            batch[ANSWERS_PER_TURN + 50].cancel()
            return number

        valkey.hang()
        batch = [asyncio.create_task(visit_first())]
        batch += [asyncio.create_task(visits.count()) for _ in range(299)]
        await asyncio.sleep(0)
        batch[2].cancel()
        valkey.go_on()
        numbers = await asyncio.gather(*batch, return_exceptions=True)
        shown = [number for number in numbers if isinstance(number, int)]
        assert len(shown) == 297
        shown += [await visits.count() or 0 for _ in range(3)]
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


async def test_a_number_of_a_plain_command_is_not_given_back(valkey: Valkey) -> None:
    """Nobody knows which token would give it."""
    async with counting(valkey.url) as visits:
        assert await visits.count() == 1
        permit(valkey.client, "-evalsha")
        plain = [await visits.count() or 0 for _ in range(2)]
        assert plain == [2, 3]
        for number in plain:
            visits.give_back(number)
        assert visits.shown == 3
        permit(valkey.client, "+evalsha")
        visits._delivery._refused_at = 0.0
        assert [await visits.count() for _ in range(2)] == [4, 5]
        assert not valkey.client.exists(SPARES)


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
@pytest.mark.parametrize("owes", [True, False])
async def test_an_end_without_redis_says_so_soon(
    valkey: Valkey, caplog: Caplog, owes: bool
) -> None:
    visits = Visits(valkey.url, timeout=1 if owes else PATIENCE)
    assert await visits.count() == 1
    if owes:
        valkey.hang()
        assert await visits.count() is None
    else:  # it has been given all its numbers, and probes in vain
        valkey.kill()
        await eventually(lambda: visits._delivery.tokens._sequence >= 3)
    caplog.clear()
    await within(0.5, visits.close())
    said = [text.partition(": ")[0] for _, text in counters_lines(caplog)]
    assert said == ["numbers that were shown to nobody may be missing"] * owes


async def test_the_record_does_not_grow_and_is_kept(valkey: Valkey, monkeypatch: Patch) -> None:
    """Else Redis would forget the newest token of a process after a day, and count it again."""
    monkeypatch.setattr("counter.probing.PROBE_EVERY", 0.02)
    monkeypatch.setattr("counter.lookout.RENEW_EVERY", 0.05)
    async with counting(valkey.url) as visits:
        record, number = process_key(visits.process_id), await visits.count()
        for _ in range(3):
            valkey.client.expire(record, 10)
            async with asyncio.timeout(PATIENCE):
                while valkey.client.ttl(record) <= 10:
                    number = await visits.count()
                    await asyncio.sleep(0.01)
        assert KEPT - PATIENCE < valkey.client.ttl(record) <= KEPT
        assert {one.decode() for one in valkey.client.scan_iter()} == {"counter", record}
        kept = {"token": f"{number} {number} 1", "visits": f"{number}"}
        assert valkey.client.hgetall(record) == {k.encode(): v.encode() for k, v in kept.items()}


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
        assert ("'evalsha'" in visits.refusal) == (once == "at most once")
    said = [text.partition(":")[0] for _, text in counters_lines(caplog)]
    refused = ["counting at most once, as Redis refuses the script"]
    assert said == ([] if once == "exactly once" else refused)


def test_the_least_permissions_are_those_that_the_script_asks_for() -> None:
    words = {f"+{name.lower()}" for name in ("EVAL", "EVALSHA", *COMMANDS)}
    assert {*least("exactly once")[4:]} == words


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
