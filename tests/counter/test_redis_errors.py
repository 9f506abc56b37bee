"""Every way in which Redis and the network fail: no page waits for long, nothing counts twice."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import counter.probing
from config import Settings
from tests.support import Caplog, fake_redis
from tests.support.before import run_before
from tests.support.counting import counting
from tests.support.fake_redis import FakeRedis
from tests.support.names import Names, names_of
from tests.support.page import counters_lines, serving
from tests.support.processes import SOON, seconds_to_stop
from tests.support.program import Start
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within

#: For what ends at the deadline: short, to be quick, but longer than a busy machine holds up
#: those visits that are to be counted. All else has no deadline that it could meet by chance.
TIMEOUT = 1.0

#: Errors that are read in a way of their own; `TROUBLES` and `test_refusals.py` have more.
ERRORS = {
    "moved": b"-MOVED 6680 127.0.0.1:1\r\n",
    "tryagain": b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    "without words": b"-\r\n",
    "script unknown": b"-NOSCRIPT\r\n",
}

#: `test_tokens.py` has replies that are well formed.
GARBAGE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "binary": bytes(range(256)),
    "nested arrays": b"*1\r\n" * 20_000,
    "a number past 64 bits": b":9223372036854775808\r\n",
    "a line without end": b":" + b"1" * 200_000,
    "not UTF-8": b"+\xff\xfe\r\n",
}

ANSWERS = {
    "closed half-way": fake_redis.half,
    **{name: fake_redis.reply(raw) for name, raw in (ERRORS | GARBAGE).items()},
}

#: Those that only the deadline ends: no line of a reply does, or a connection that is cut is
#: followed by another. All others end at once.
UNANSWERED = {"silent", "closed at accept", "closed half-way", "binary"}

#: Those after which visits are counted by a plain command, where that is not refused too.
REFUSED = {"tryagain", "without words", "script unknown"}


def fail(fake: FakeRedis, failure: str) -> None:
    if failure == "refused":
        fake.refuse()
    elif failure == "silent":
        fake.silent = True
    elif failure == "closed at accept":
        fake.hanging_up = True
        fake.cut()
    else:
        fake.answer = ANSWERS[failure]


@pytest.mark.parametrize(
    ("failure", "first", "timeout"),
    [
        *((one, True, PATIENCE) for one in ("refused", *ANSWERS) if one not in UNANSWERED),
        *((one, True, TIMEOUT) for one in UNANSWERED),
        *(("refused", False, PATIENCE), ("silent", False, TIMEOUT)),
        *((one, True, Settings().redis_timeout) for one in ("refused", "silent")),
    ],
)
async def test_a_failure_is_a_fallback_page_for_all_who_wait_and_passes(
    fake: FakeRedis, failure: str, first: bool, timeout: float, request: pytest.FixtureRequest
) -> None:
    if timeout != Settings().redis_timeout:
        request.getfixturevalue("often_probed")
    async with serving(fake.url, timeout=timeout) as visitor:
        assert not first or await visitor.counted_again(PATIENCE)
        before = len(fake.visits())
        fail(fake, failure)
        visits = asyncio.gather(*(visitor.visit() for _ in range(10)))
        assert await within(timeout if failure in UNANSWERED else 0, visits) == [None] * 10

        # With one token at most, and not by the pages that follow.
        await visitor.assert_at_once(5)
        sent = fake.visits()[before:]
        assert len(sent) <= (2 if failure in REFUSED else 1)

        # What may yet come on that connection is not waited for.
        for command in sent[-1:]:
            await eventually(lambda command=command: command.connection.closed)
            last = [one for one in fake.commands if one.connection is command.connection][-1]
            assert last is command

        fake.heal()
        if not fake.listening:
            fake.listen()
        assert await visitor.counted_again() == fake.counter
        assert await visitor.visit() == fake.counter
        assert [one.visits for one in fake.visits()[before + len(sent) :]] == [1, 1]


@pytest.mark.parametrize("extra", [b"-ERR late\r\n", b":9"])
async def test_a_second_reply_is_never_a_visits_number(fake: FakeRedis, extra: bytes) -> None:
    async def twice(writer: asyncio.StreamWriter, sound: bytes) -> None:
        writer.write(sound + extra)

    fake.answer = twice
    async with counting(fake.url) as visits:
        assert [await visits.count() for _ in range(2)] == [1, 2]
        with fake.held():
            first = asyncio.create_task(visits.count())
            await eventually(lambda: len(fake.visits()) == 3)
            rest = [asyncio.create_task(visits.count()) for _ in range(2)]
            await asyncio.sleep(0)  # they wait from now on
        assert await asyncio.gather(first, *rest) == [3, 4, 5]
        # None of these connections was used again.
        assert len({command.connection for command in fake.visits()}) == 4
        await eventually(lambda: len(fake.open()) <= 1)


@pytest.mark.usefixtures("patient_probes")
@pytest.mark.parametrize(
    "happens",
    [lambda fake: fake.send(b":99\r\n"), FakeRedis.cut, lambda fake: fake.cut(reset=True)],
    ids=["bytes", "end", "reset"],
)
async def test_an_idle_connection_of_no_more_use_costs_no_visit_and_is_replaced_before_it(
    fake: FakeRedis, happens: Callable[[FakeRedis], None]
) -> None:
    async with serving(fake.url) as visitor:
        assert await visitor.visit() == 1
        async with visitor.losing_connection():
            happens(fake)
        assert await visitor.visit() == 2
        assert len(fake.visits()) == 2
        await eventually(lambda: fake.connections[0].closed)
        (used,) = fake.open()
        happens(fake)
        await eventually(lambda: used.closed and len(fake.open()) == 1)
        (replacing,) = fake.open()
        assert await visitor.visit() == 3
        assert fake.visits()[-1].connection is replacing


@pytest.fixture
def names() -> Iterator[Names]:
    # The fake listens on the second only.
    yield from names_of({"redis.invalid": ["127.0.0.2", "127.0.0.1"]})


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "does not know"])
async def test_a_resolver_may_fail_for_a_while(fake: FakeRedis, names: Names, hangs: bool) -> None:
    found, timeout = names.addresses["redis.invalid"], TIMEOUT if hangs else PATIENCE
    if hangs:
        names.hanging.add("redis.invalid")
    else:
        names.addresses["redis.invalid"] = []
    async with serving(f"redis://redis.invalid:{fake.port}", timeout=timeout) as visitor:
        both = asyncio.gather(*(visitor.visit() for _ in range(20)))
        await eventually(lambda: names.asked["redis.invalid"])
        other = asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert await asyncio.wait_for(other, PATIENCE / 2), "the other look-up hangs till the end"
        assert await within(TIMEOUT if hangs else 0, both) == [None] * 20
        await eventually(lambda: names.asked["redis.invalid"] >= 2)
        await visitor.assert_at_once(2)
        # The look-ups that hang go on hanging: the next one must do.
        names.hanging.clear()
        names.addresses["redis.invalid"] = found
        assert await visitor.counted_again() == 1, "every address of the name is tried"


def test_a_look_up_that_hangs_holds_up_no_end(program: Start, tmp_path: Path) -> None:
    code = "from tests.support.names import Names; names = Names({'redis.invalid': []})"
    code += "; names.hanging.add('redis.invalid'); names.install()"
    server = program("--redis-url=redis://redis.invalid:1", **run_before(tmp_path, code))
    server.wait_for(rb"counter off")
    assert seconds_to_stop(server) < SOON


@pytest.mark.usefixtures("often_probed")
async def test_replies_that_are_too_slow_keep_it_off(fake: FakeRedis, caplog: Caplog) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(fake.url, timeout=1) as visitor:
        assert await visitor.visit() == 1
        fake.refuse()
        assert await visitor.visit() is None
        # A visit that came while another is counted would have to wait for two replies.
        fake.answer, before = fake_redis.late(0.9), len(fake.commands)
        fake.listen()
        while sum(one.connection.closed for one in fake.commands[before:]) < 5:  # given up
            assert await visitor.visit() is None
            await asyncio.sleep(0.05)
        assert len(fake.visits()) == 1
        assert {level for level, _ in counters_lines(caplog)} == {"WARNING"}
        fake.heal()
        await visitor.counted_again()


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("away", ["silent", "refusing", "look-up hangs"])
async def test_connections_and_threads_do_not_pile_up_while_redis_is_away(
    fake: FakeRedis, names: Names, away: str, caplog: Caplog
) -> None:
    names.hanging.add("redis.invalid")
    fake.silent, fake.hanging_up = away == "silent", away == "refusing"
    host = "redis.invalid" if away == "look-up hangs" else "127.0.0.1"

    def tries() -> int:
        return len(fake.connections) + names.asked["redis.invalid"]

    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(f"redis://{host}:{fake.port}", timeout=0.2) as visitor:
        await visitor.visits.start(1)
        assert await visitor.visit() is None
        before, start = tries(), time.monotonic()
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        # Those who ask for a name that hangs share its look-ups.
        while tries() < before + (2 if away == "look-up hangs" else 20):
            assert await visitor.visit() is None
            assert threading.active_count() - threads <= 4
            assert len(os.listdir("/proc/self/fd")) - files <= 20
            await asyncio.sleep(0.01)
        probes = (time.monotonic() - start) / counter.probing.PROBE_EVERY
        # redis-py connects twice when the first connection ends at once.
        assert tries() - before <= 2 * probes + 2
        assert len(fake.open()) <= 10
        assert not fake.visits()
    assert {level for level, _ in counters_lines(caplog)} == {"WARNING"}


#: Commands that bring a real Valkey into trouble, and those that bring it back.
TROUBLES = {
    "a list as counter": ("RENAME counter kept; RPUSH counter a", "RENAME kept counter"),
    "a full counter": (f"RENAME counter kept; SET counter {2**63 - 1}", "RENAME kept counter"),
    "a replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "memory full": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "another password": (
        "CONFIG SET requirepass x; CLIENT KILL TYPE normal",
        "CONFIG SET requirepass ",
    ),
    "not permitted": ("ACL SETUSER default -incr -incrby", "ACL SETUSER default +incr +incrby"),
    "paused": ("CLIENT PAUSE 20000 WRITE", "CLIENT UNPAUSE"),
}


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("name", TROUBLES)
async def test_trouble_of_a_real_valkey_passes(valkey: Valkey, caplog: Caplog, name: str) -> None:
    def run(commands: str) -> None:
        for command in commands.split("; "):
            valkey.client.execute_command(*command.split(" "))

    caplog.set_level("INFO", logger="friendlyhello.visits")
    is_paused = name == "paused"
    async with serving(valkey.url, timeout=TIMEOUT if is_paused else PATIENCE) as visitor:
        assert await visitor.visit() == 1
        begin, end = TROUBLES[name]
        run(begin)
        before = valkey.client.dump("counter")
        assert await within(TIMEOUT if is_paused else 0, visitor.visit()) is None
        await visitor.assert_at_once(5)
        probes = valkey.client.info("stats")["total_connections_received"] + 3
        while valkey.client.info("stats")["total_connections_received"] < probes:
            assert await visitor.visit() is None
            await asyncio.sleep(0.02)
        lines = counters_lines(caplog)
        assert {level for level, _ in lines} == {"WARNING"}
        # A visit and a probe, which adds nothing, may meet it in two ways.
        assert len(lines) <= 2
        assert valkey.client.dump("counter") == before
        run(end)
        number = await visitor.counted_again()
        # A paused Valkey may count the visit it was sent.
        assert number in ((2, 3) if is_paused else (2,))
        assert await visitor.visit() == number + 1 == valkey.counter()
