"""What all have written is read: what can be, what has changed, and in pieces."""

import asyncio
import contextlib
import gc
import math
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from replicas import Reader, Record, Snapshot, known, link
from replicas.keys import DAY
from replicas.reading import MAX_PROCESSES
from replicas.records import MAX_TEXT, MAX_WORDS
from tests.support import Patch
from tests.support.counting import counting, reading, replica, replicas_in
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within
from watch import events

NAMES = "{counter}:processes"


def key_of(id: str) -> str:
    return f"{{counter}}:process:{id}"


def write(valkey: Valkey, *ids: str, ago: float = 0.0, **fields: Any) -> None:
    """Write records as processes do that were seen so long ago."""
    with valkey.client.pipeline() as client:
        for id in ids:
            own = {"hostname": f"web-{id}", "visits": 1} | fields
            client.hset(key_of(id), mapping={name: one for name, one in own.items() if one != ""})
            client.expire(key_of(id), DAY)
        client.zadd(NAMES, dict.fromkeys(ids, time.time() - ago))
        client.execute()


@contextlib.asynccontextmanager
async def reader_of(valkey: Valkey) -> AsyncIterator[Reader]:
    async with counting(valkey.url) as visits:
        with reading(visits) as reader:
            yield reader


async def test_what_is_no_record_leaves_the_rest_and_what_is_no_number_does_not(
    valkey: Valkey,
) -> None:
    async with replica(valkey.url) as visits:
        with reading(visits) as reader:
            assert (await reader.read()).total == 0
            await visits.count()
            valkey.client.zadd(NAMES, {"another": time.time(), "none": time.time()})
            valkey.client.hset(key_of("another"), "colour", "blue")
            shown = await reader.read()
            assert (shown.total, [one.hostname for one in replicas_in(shown)]) == (1, ["web-1"])
            assert not shown.refused
            valkey.client.set(NAMES, "x")
            shown = await reader.read()
            assert (shown.total, replicas_in(shown)) == (1, [])
            valkey.client.set("counter", "x")
            with pytest.raises(ValueError, match="x"):
                await reader.read()
            valkey.client.delete("counter")
            valkey.client.rpush("counter", "x")
            with pytest.raises(redis.ResponseError):
                await reader.read()
            valkey.client.delete("counter")
            assert (await reader.read()).total == 0


@pytest.mark.parametrize("visits", ["-1", "9" * 100_000, None], ids=lambda one: one and one[:20])
async def test_a_record_that_cannot_be_read_is_left_out_alone_and_named_once(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, visits: str | None
) -> None:
    bad = "bad\r\nid"
    write(valkey, "good")
    write(valkey, bad, visits=visits or 1)
    if visits is None:
        valkey.client.delete(key_of(bad))
        valkey.client.rpush(key_of(bad), "x")
    async with counting(valkey.url) as counter:
        for _ in range(2):  # whoever watches, and again later
            with reading(counter) as reader:
                for _ in range(3):
                    shown = await reader.read()
                    assert [one.hostname for one in replicas_in(shown)] == ["web-good"]
                    assert not shown.refused
                if visits:
                    write(valkey, bad, visits=5)
                    assert len(replicas_in(await reader.read())) == 2, "it can be read now"
                    valkey.client.hset(key_of(bad), "visits", visits)
            lines = [one for one in caplog.messages if "left out" in one]
            assert len(lines) == 1
            assert lines[0].startswith(f"{key_of(bad)} is left out of the live page: ")
            assert len(lines[0]) < 2 * MAX_TEXT
            caplog.clear()


async def test_what_others_write_is_read_as_far_as_it_goes_and_cut_however_long_it_is(
    valkey: Valkey,
) -> None:
    write(valkey, "old", labels="", visits=7)  # an older version's, which had none
    write(valkey, "labels", labels="a=1,b=,c")
    write(valkey, "bytes", labels=b"\xff=\xff")
    for id, score in (("first", -math.inf), ("last", math.inf), ("zero", 0)):
        write(valkey, id, marked="9 x", started="-5")
        valkey.client.zadd(NAMES, {id: score})
    long, now = "x" * 5_000_000, time.time()
    write(valkey, "long", hostname=long, version=long, labels=f"zone=eu,{long}={long}", state=long)
    away = " ".join([f"{now - 9:.3f} {now - 8:.3f} {'y' * 1000}", *["1.0 2.0 z"] * 999])
    labels = ",".join(f"{i}=" for i in range(99))
    write(valkey, "many", faults=f"sick,{long}", away=away, labels=labels)
    write(valkey, "h", hostname="h" * MAX_TEXT, faults="," * 9999)
    step = f"{int(now) // 2 * 2} " + " ".join(f"{i}=1" for i in range(1500))
    valkey.client.hset("{counter}:last:5m", "0", step)
    async with reader_of(valkey) as reader:
        shown = await reader.read(["5m"])
        told = await events.figures(shown, {}, ())
    assert len(told) < 5000
    assert b"Infinity" not in told
    assert len(shown.moments["5m"][0][1]) <= MAX_WORDS
    found, cut = {one.id: one for one in shown.records}, "x" * (MAX_TEXT - 1) + "…"
    assert [found[id].labels for id in ("old", "labels")] == [{}, {"a": "1", "b": ""}]
    assert (found["old"].visits, found["bytes"].labels) == (7, {"\ufffd": "\ufffd"})
    odd = [
        one for one in replicas_in(shown) if one.hostname in ("web-first", "web-last", "web-zero")
    ]
    assert [one.seen for one in odd] == pytest.approx([DAY, 0, DAY], abs=PATIENCE)
    assert [found[id].started for id in ("first", "last", "zero")] == [0] * 3
    one, many = found["long"], found["many"]
    assert (one.hostname, one.version, one.labels["zone"], one.state) == (cut, cut, "eu", "")
    assert (many.faults, len(many.labels)) == (["sick", cut], MAX_WORDS)
    assert (len(many.away), len(many.away[0].reason)) == (MAX_WORDS, MAX_TEXT)
    assert (found["h"].hostname, found["h"].faults) == ("h" * MAX_TEXT, [])


async def test_a_look_that_takes_too_long_is_given_up(valkey: Valkey, monkeypatch: Patch) -> None:
    monkeypatch.setattr(link, "TIMEOUT", PATIENCE)
    async with reader_of(valkey) as reader:
        await reader.read()
        kept = reader._link._replies
        await reader.read()
        assert reader._link._replies is kept
        valkey.hang()
        monkeypatch.setattr(link, "TIMEOUT", 0.2)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await within(0.2, reader.read())
            assert reader._link._replies is None, "the way to Redis is asked anew"
        valkey.go_on()
        monkeypatch.setattr(link, "TIMEOUT", PATIENCE)
        assert (await reader.read()).total == 0
        await eventually(lambda: len(valkey.client.client_list()) == 2)


async def test_of_a_text_that_fills_the_memory_the_beginning_is_kept() -> None:
    replies, most, size = link._Replies(), 0, 10_000_000
    reading = asyncio.create_task(replies.read())
    replies.data_received(b"$%d\r\n" % size)
    for _ in range(100):
        replies.data_received(b"x" * (size // 100))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        most = max(most, len(replies._input) - replies._at)
    replies.data_received(b"\r\n:7\r\n")
    assert await reading == b"x" * link.MAX_TEXT
    assert most <= size // 100
    assert await replies.read() == 7, "what follows is read as well"
    replies.connection_lost(None)
    with pytest.raises(redis.ConnectionError):
        await replies.read()


@pytest.mark.parametrize(
    ("cut", "junk"),
    [
        *((1, b"HTTP/1.1 400\r\n"), (2, b"$x\r\n"), (3, b"$x\r\n"), (7, b"$x\r\n")),
        (1000, b"y" * 100_000),
    ],
)
async def test_replies_are_read_however_they_are_cut_and_what_is_none_is_an_error(
    cut: int, junk: bytes
) -> None:
    data = b"*4\r\n$3\r\na\r\n\r\n$-1\r\n:-5\r\n*1\r\n-ERR no\r\n+OK\r\n*-1\r\n$0\r\n\r\n" + junk
    replies = link._Replies()

    async def read_all() -> list[Any]:
        return [await replies.read() for _ in range(4)]

    found = asyncio.create_task(read_all())
    for at in range(0, len(data), cut):
        replies.data_received(data[at : at + cut])
        await asyncio.sleep(0)
    first, *others = await found
    assert first[:3] == [b"a\r\n", None, -5]
    assert [str(one) for one in first[3]] == ["no"]
    assert others == [b"OK", None, b""]
    with pytest.raises(ValueError, match="Redis "):
        await replies.read()


async def test_records_are_read_again_when_they_change(valkey: Valkey, monkeypatch: Patch) -> None:
    monkeypatch.setattr(known, "AGAIN", 5)
    for i in range(50):
        write(valkey, f"{i}", ago=10 + i, state="gone" if i % 2 else "")
    async with reader_of(valkey) as reader:

        async def reads() -> int:
            before = valkey.commands("hmget")
            assert len((await reader.read()).records) == 50 - deleted
            return valkey.commands("hmget") - before

        deleted = 0
        assert await reads() == 50
        assert await reads() == 5
        write(valkey, "7", visits=99)  # one that has gone comes again
        assert 5 < await reads() <= 12, "that one, and what was asked for in the same moment"
        assert await reads() == 6, "it is fresh now"
        assert next(one.visits for one in (await reader.read()).records if one.id == "7") == 99
        valkey.client.delete(key_of("9"))  # by hand: its name is still there
        deleted = 1
        left = [len((await reader.read()).records) for _ in range(10)]
        assert left[-1] == 49, "what somebody has deleted is noticed in turn"


async def test_of_too_many_those_seen_last_are_read_and_what_has_gone_is_not_kept(
    valkey: Valkey, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("replicas.reading.MAX_PROCESSES", 2)
    async with reader_of(valkey) as reader:
        for day in range(5):
            valkey.client.delete(NAMES)
            for i in range(4):
                write(valkey, f"{day}-{i}", ago=i, visits=i)
            found = [(one.id, one.visits) for one in (await reader.read()).records]
            assert found == [(f"{day}-0", 0), (f"{day}-1", 1)]
            assert {*reader._known._known} == {f"{day}-0", f"{day}-1"}
    assert not reader._known._known, "nobody watches any more"


def test_what_was_shown_is_kept_of_two_looks_processes(monkeypatch: Patch) -> None:
    assert events.MAX_KNOWN == 2 * MAX_PROCESSES
    monkeypatch.setattr(events, "MAX_KNOWN", 4)
    counted = events.Counted()

    def since(now: float, **visits: int) -> Any:
        records = [Record(id, "web", number, now) for id, number in visits.items()]
        return counted.since_last(Snapshot(now, 0, records))

    one = dict.fromkeys("abcd", 5)
    assert since(1, **one) is None
    assert since(2, e=7) == {"": 7}
    assert since(3, e=7, d=6) == {"": 1}, "it was not to be seen for a moment"
    assert sorted(counted._visits) == ["b", "c", "d", "e"]


@pytest.fixture
def no_garbage_collected() -> Iterator[None]:
    """The server collects garbage less often than a test."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collected")
async def test_a_look_at_many_is_in_pieces(valkey: Valkey, monkeypatch: Patch) -> None:
    """Each is a small part of it; by the CPU's time, so that busy neighbours do not matter."""
    monkeypatch.setattr(link, "TIMEOUT", PATIENCE)
    now, turns = time.time(), list[float]()
    away = " ".join(f"{now - i:.3f} {now - i + 2:.3f} no%20answer" for i in range(900, 100, -100))
    write(valkey, *map(str, range(1000)), version="1.0", away=away, started=f"{now - 1000:.3f}")

    async def look_on() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            turns.append(time.thread_time() - last)
            last = time.thread_time()

    counted, works, longest = events.Counted(), list[float](), list[float]()
    async with reader_of(valkey) as reader:
        for _ in range(4):  # all have given a sign from one look to the next
            valkey.client.zadd(NAMES, {f"{i}": time.time() - i / 1_000_000 for i in range(1000)})
            begun = time.thread_time()
            looking = asyncio.create_task(look_on())
            shown = await reader.read(["5m"])
            assert len(shown.records) == 1000
            new = counted.since_last(shown)
            await asyncio.sleep(0)
            await events.figures(shown, new, ())
            await events.marks(shown)
            await asyncio.sleep(0)  # the last one ends
            await asyncio.sleep(0)
            looking.cancel()
            works.append(time.thread_time() - begun)
            longest.append(max(turns))
            turns.clear()
    assert min(longest) < min(0.005, min(works) / 20), (longest, works)
