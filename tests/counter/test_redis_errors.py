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
from counter.resolver import MAX_LOOK_UPS
from tests.support import Caplog, Patch, fake_redis
from tests.support.before import run_before
from tests.support.counting import counting
from tests.support.driven import timed
from tests.support.fake_redis import FakeRedis
from tests.support.names import Names, names_of
from tests.support.page import counters_lines, serving
from tests.support.processes import SOON, seconds_to_stop
from tests.support.program import Start
from tests.support.valkey import Valkey
from tests.support.waiting import BUSY, PATIENCE, eventually, wait_until, within

#: For what ends at the deadline: short, to be quick, but longer than a busy machine holds up
#: those visits that are to be counted. All else has no deadline that it could meet by chance.
TIMEOUT = 1.0

#: Errors that are read in a way of their own; `TROUBLES` and `test_refusals.py` have more.
ERRORS = {
    "oom": "OOM command not allowed when used memory > 'maxmemory'.",
    "moved": "MOVED 6680 127.0.0.1:1",
    "tryagain": "TRYAGAIN Multiple keys request during rehashing of slot",
    "without words": "",
}

GARBAGE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "binary": bytes(range(256)),
    "tls alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "bulk string": b"$2\r\n42\r\n",
    "array of one number": b"*1\r\n:1\r\n",
    "nil": b"$-1\r\n",
    "huge length": b"$999999999\r\n",
    "nested arrays": b"*1\r\n" * 20_000,
    "no number": b":twelve\r\n",
    "a number of 9000 digits": b":" + b"9" * 9_000 + b"\r\n",
    "a number past 64 bits": b":9223372036854775808\r\n",
    "a line without end": b":" + b"1" * 200_000,
    "line feed only": b":1\n",
    "ok": b"+OK\r\n",
    "a number as text": b"+42\r\n",
    "a script that is unknown": b"-NOSCRIPT\r\n",
    "a reply to no such token": b"+7 x y\r\n",
    "too many numbers": b"+1 5 9\r\n",
    "another token's reply": b"+3 1 1\r\n",
    "RESP3 push": b">2\r\n+invalidate\r\n_\r\n",
    "not UTF-8": b"+\xff\xfe\r\n",
}


def _hang_up_on_all(fake: FakeRedis) -> None:
    fake.hanging_up = True
    fake.cut()


def _answering(answer: fake_redis.Answer) -> Callable[[FakeRedis], None]:
    return lambda fake: setattr(fake, "answer", answer)


FAILURES: dict[str, Callable[[FakeRedis], None]] = {
    "refused": FakeRedis.refuse,
    "closed at accept": _hang_up_on_all,
    "silent": lambda fake: setattr(fake, "silent", True),
    "no reply": _answering(fake_redis.never),
    "closed instead of a reply": _answering(fake_redis.hang_up),
    "closed half-way": _answering(fake_redis.half),
    "late": FakeRedis.answer_when_healed,
    "dripping": _answering(fake_redis.drip(2 * TIMEOUT)),
    **{f"error: {name}": _answering(fake_redis.reply(f"-{text}\r\n".encode()))
       for name, text in ERRORS.items()},
    **{f"garbage: {name}": _answering(fake_redis.only(raw)) for name, raw in GARBAGE.items()},
}  # fmt: skip

#: Those that only the deadline ends: no line of a reply does, or a connection that is cut is
#: followed by another. All others end at once.
UNANSWERED = {
    *("silent", "no reply", "late", "dripping"),
    *("closed at accept", "closed instead of a reply", "closed half-way"),
    *("garbage: binary", "garbage: tls alert", "garbage: line feed only"),
}

#: Those after which a visit is counted by a plain command, where that is not refused too.
REFUSED = {"error: tryagain", "error: without words", "garbage: a script that is unknown"}


@pytest.mark.parametrize(
    ("failure", "first", "timeout"),
    [
        *((one, True, TIMEOUT if one in UNANSWERED else PATIENCE) for one in FAILURES),
        *(("refused", False, PATIENCE), ("silent", False, TIMEOUT)),
        *((one, True, Settings().redis_timeout) for one in ("refused", "silent")),
    ],
)
async def test_a_failure_is_one_fallback_page_and_passes(
    fake: FakeRedis, failure: str, first: bool, timeout: float, request: pytest.FixtureRequest
) -> None:
    if timeout != Settings().redis_timeout:
        request.getfixturevalue("often_probed")
    async with serving(fake.url, timeout=timeout) as visitor:
        assert not first or await visitor.counted_again(PATIENCE)
        before = len(fake.visits())
        FAILURES[failure](fake)
        assert await within(timeout if failure in UNANSWERED else 0, visitor.visit()) is None

        # With one token at most, and not by the pages that follow.
        await visitor.assert_at_once(5)
        sent = fake.visits()[before:]
        assert sum(command.visits for command in sent) <= (2 if failure in REFUSED else 1)

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
        assert sum(command.visits for command in fake.visits()[before:]) == len(sent) + 2


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("failure", ["no reply", "error: oom", "closed half-way"])
async def test_visits_that_wait_together_fail_together(fake: FakeRedis, failure: str) -> None:
    timeout = TIMEOUT if failure in UNANSWERED else PATIENCE
    async with serving(fake.url, timeout=timeout) as visitor:
        assert await visitor.counted_again(PATIENCE)
        before = len(fake.visits())
        FAILURES[failure](fake)
        # None waits past its deadline: see `serving`.
        assert await asyncio.gather(*(visitor.visit() for _ in range(32))) == [None] * 32
        assert sum(command.visits for command in fake.visits()[before:]) <= 32
        fake.heal()
        assert await visitor.counted_again() == fake.counter


@pytest.mark.parametrize("extra", [b":99\r\n", b"+OK\r\n", b"-ERR late\r\n", b":9"])
async def test_a_second_reply_is_never_a_visits_number(fake: FakeRedis, extra: bytes) -> None:
    async def twice(connection: fake_redis.Connection, sound: bytes) -> None:
        connection.writer.write(sound + extra)

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
        assert len({command.connection.number for command in fake.visits()}) == 4
        await eventually(lambda: len(fake.open()) <= 1)


@pytest.mark.parametrize(
    "happens",
    [
        lambda fake: fake.send(b":99\r\n"),
        FakeRedis.cut,
        lambda fake: fake.cut(reset=True),
    ],
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
        waiting = [asyncio.create_task(visitor.visit()) for _ in range(20)]
        await eventually(lambda: names.asked["redis.invalid"])
        other = asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert await asyncio.wait_for(other, PATIENCE / 2), "the other look-up hangs till the end"
        both = asyncio.gather(*waiting)
        assert await within(TIMEOUT if hangs else 0, both) == [None] * 20
        await eventually(lambda: names.asked["redis.invalid"] >= 2)
        await visitor.assert_at_once(2)
        # The look-ups that hang go on hanging: the next one must do.
        names.hanging.clear()
        names.addresses["redis.invalid"] = found
        assert await visitor.counted_again() == 1, "every address of the name is tried"


@pytest.mark.usefixtures("often_probed")
async def test_replies_that_are_too_slow_keep_it_off(fake: FakeRedis, caplog: Caplog) -> None:
    async with serving(fake.url, timeout=1) as visitor:
        assert await visitor.visit() == 1
        fake.answer = fake_redis.late(0.9)

        def probes() -> int:
            return sum(one.counts and not one.visits for one in fake.commands)

        # A visit that comes while another is counted waits for two replies, and has no time for
        # them, but where the machine brings it later.
        while visitor.visits.up:
            sent = len(fake.visits())
            first = asyncio.create_task(visitor.visit())
            await eventually(lambda sent=sent: len(fake.visits()) > sent)
            await asyncio.gather(first, *(visitor.visit() for _ in range(10)))
        while probes() < 5:
            assert await visitor.visit() is None
            await asyncio.sleep(0.05)
        assert [level for level, _ in counters_lines(caplog)] == ["WARNING"]
        fake.heal()
        await visitor.counted_again()


def test_a_hung_look_up_holds_up_nothing(fake: FakeRedis, program: Start, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.touch()
    names = f"Names({{'redis.invalid': ['127.0.0.1']}}, Path({str(hang)!r})).install()"
    code = f"from pathlib import Path\nfrom tests.support.names import Names\n{names}"
    url, patient = f"redis://redis.invalid:{fake.port}", f"--redis-timeout={PATIENCE}"
    server = program(f"--redis-url={url}", patient, **run_before(tmp_path, code))
    threads = Path(f"/proc/{server.process.pid}/task")
    server.wait_for(rb"counter off")
    begun = time.monotonic()
    assert [server.visits() for _ in range(20)] == [None] * 20
    assert time.monotonic() - begun < PATIENCE / 2
    wait_until(lambda: len(list(threads.iterdir())) >= 5)
    hang.unlink()  # those that hang go on hanging
    _, seconds = timed(server, lambda: wait_until(lambda: server.visits() == 1))
    assert seconds < 2 + BUSY
    assert len(list(threads.iterdir())) <= MAX_LOOK_UPS + 4
    assert seconds_to_stop(server) < SOON


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
    "a list as counter": (["RENAME counter kept", "RPUSH counter a"], ["RENAME kept counter"]),
    "text as counter": (["RENAME counter kept", "SET counter abc"], ["RENAME kept counter"]),
    "the counter at its end": (
        ["RENAME counter kept", f"SET counter {2**63 - 1}"],
        ["RENAME kept counter"],
    ),
    "a replica": (["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
    "memory full": (["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"]),
    "another password": (
        ["CONFIG SET requirepass another", "CLIENT KILL TYPE normal"],
        ["CONFIG SET requirepass "],
    ),
    "not permitted": (
        ["ACL SETUSER default -incr -incrby"],
        ["ACL SETUSER default +incr +incrby"],
    ),
    "paused": (["CLIENT PAUSE 20000 WRITE"], ["CLIENT UNPAUSE"]),
}


def run(valkey: Valkey, commands: list[str]) -> None:
    for command in commands:
        valkey.client.execute_command(*command.split(" "))


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("name", TROUBLES)
async def test_trouble_of_a_real_valkey_passes(valkey: Valkey, caplog: Caplog, name: str) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    is_paused = name == "paused"
    async with serving(valkey.url, timeout=TIMEOUT if is_paused else PATIENCE) as visitor:
        assert await visitor.visit() == 1
        begin, end = TROUBLES[name]
        run(valkey, begin)
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
        run(valkey, end)
        number = await visitor.counted_again()
        # A paused Valkey may count the visit it was sent.
        assert number in ((2, 3) if is_paused else (2,))
        assert await visitor.visit() == number + 1 == valkey.counter()


async def test_a_cut_that_nobody_sees_costs_no_visit(valkey: Valkey, monkeypatch: Patch) -> None:
    # Looked for while it was away, the counter might be off for a moment.
    monkeypatch.setattr(counter.probing, "PROBE_EVERY", PATIENCE)
    async with serving(valkey.url) as visitor:
        for number in range(1, 4):
            assert await visitor.visit() == number
            async with visitor.losing_connection():
                if number < 3:
                    assert valkey.client.client_kill_filter(_type="normal", skipme=True) == 1
                else:
                    valkey.kill()
                    valkey.start()
        assert await visitor.visit() == 4
