"""Every way in which Redis and the network fail: the page is served, nothing counts twice."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

import counter.probing
from config import Settings
from counter import Visits
from tests.support import fake_redis
from tests.support.fake_redis import FakeRedis
from tests.support.page import Visitor, counters_lines, serving
from tests.support.ports import held_port
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within

#: For what ends at the deadline: short, to be quick, but longer than a busy machine holds up
#: those visits that are to be counted. All else has no deadline that it could meet by chance.
TIMEOUT = 1.0

ERRORS = {
    "loading": "LOADING Redis is loading the dataset in memory",
    "readonly": "READONLY You can't write against a read only replica.",
    "oom": "OOM command not allowed when used memory > 'maxmemory'.",
    "noauth": "NOAUTH Authentication required.",
    "noperm": "NOPERM User default has no permissions to run the 'incr' command",
    "wrongtype": "WRONGTYPE Operation against a key holding the wrong kind of value",
    "not an integer": "ERR value is not an integer or out of range",
    "overflow": "ERR increment or decrement would overflow",
    "misconf": "MISCONF Redis is configured to save RDB snapshots, but cannot",
    "clusterdown": "CLUSTERDOWN Hash slot not served",
    "moved": "MOVED 6680 127.0.0.1:1",
    "moved to nowhere": "MOVED",
    "ask": "ASK 6680 127.0.0.1:1",
    "masterdown": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is 'no'.",
    "busy script": "BUSY Redis is busy running a script.",
    "tryagain": "TRYAGAIN Multiple keys request during rehashing of slot",
    "maximum of clients": "ERR max number of clients reached",
    "without words": "",
}

GARBAGE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "binary": bytes(range(256)),
    "tls alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "bulk string": b"$2\r\n42\r\n",
    "array": b"*2\r\n:1\r\n:2\r\n",
    "array of one number": b"*1\r\n:1\r\n",
    "empty array": b"*0\r\n",
    "nil": b"$-1\r\n",
    "nil array": b"*-1\r\n",
    "huge length": b"$999999999\r\n",
    "huge array": b"*999999999\r\n",
    "nested arrays": b"*1\r\n" * 20_000,
    "negative length": b"$-7\r\n",
    "no number": b":twelve\r\n",
    "a number without digits": b":\r\n",
    "a number of 300 digits": b":" + b"9" * 300 + b"\r\n",
    "a number of 9000 digits": b":" + b"9" * 9_000 + b"\r\n",
    "a fraction": b":1.5\r\n",
    "empty line": b"\r\n",
    "a line without end": b":" + b"1" * 200_000,
    "line feed only": b":1\n",
    "ok": b"+OK\r\n",
    "a number as text": b"+42\r\n",
    "RESP3 number": b",1.0\r\n",
    "RESP3 push": b">2\r\n+invalidate\r\n_\r\n",
    "not UTF-8": b"+\xff\xfe\r\n",
}


def _refuse(fake: FakeRedis) -> None:
    fake.refuse()


def _hang_up_on_all(fake: FakeRedis) -> None:
    fake.hanging_up = True
    fake.close_connections()


def _fall_silent(fake: FakeRedis) -> None:
    fake.silent = True


def _answer_too_late(fake: FakeRedis) -> None:
    fake.answer_when_healed()


def _answering(answer: fake_redis.Answer) -> Callable[[FakeRedis], None]:
    def misbehave(fake: FakeRedis) -> None:
        fake.answer = answer

    return misbehave


FAILURES: dict[str, Callable[[FakeRedis], None]] = {
    "refused": _refuse,
    "closed at accept": _hang_up_on_all,
    "silent": _fall_silent,
    "no reply": _answering(fake_redis.never),
    "closed instead of a reply": _answering(fake_redis.hang_up),
    "closed half-way": _answering(fake_redis.half),
    "late": _answer_too_late,
    "dripping": _answering(fake_redis.drip(2 * TIMEOUT)),
    **{f"error: {name}": _answering(fake_redis.reply(f"-{text}\r\n".encode()))
       for name, text in ERRORS.items()},
    "a number past 64 bits": _answering(fake_redis.reply(b":9223372036854775808\r\n")),
    **{f"garbage: {name}": _answering(fake_redis.only(raw)) for name, raw in GARBAGE.items()},
}  # fmt: skip


#: Those that differ in nothing but their words from others: at length.
ALIKE = {
    *("error: readonly", "error: misconf", "error: clusterdown", "error: masterdown"),
    *(
        "error: busy script",
        "error: maximum of clients",
        "error: noauth",
        "error: moved to nowhere",
    ),
    *("garbage: array", "garbage: empty array", "garbage: nil array", "garbage: huge array"),
    *("garbage: negative length", "garbage: a number without digits", "garbage: a fraction"),
    *("garbage: a number of 300 digits", "garbage: empty line", "garbage: RESP3 number"),
    *("garbage: tls alert", "garbage: line feed only"),
}

#: Those that only the deadline ends: no line of a reply does, or a connection that is cut is
#: followed by another. All others end at once.
UNANSWERED = {
    *("silent", "no reply", "late", "dripping"),
    *("closed at accept", "closed instead of a reply", "closed half-way"),
    *("garbage: binary", "garbage: tls alert", "garbage: line feed only"),
}

#: Those after which a visit is counted by a plain command, where that is not refused too.
REFUSED = {
    *("error: noperm", "error: tryagain", "error: without words"),
    *("error: wrongtype", "error: not an integer", "error: overflow"),
}


async def _fails_and_comes_back(
    fake: FakeRedis, visitor: Visitor, failure: str, timeout: float
) -> None:
    before = len(fake.visits())
    assert await within(timeout if failure in UNANSWERED else 0, visitor.visit()) is None

    # With one token at most, and not by the pages that follow.
    await visitor.assert_at_once()
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


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize(
    "failure",
    [pytest.param(one, marks=[pytest.mark.slow] if one in ALIKE else []) for one in FAILURES],
)
async def test_a_failure_is_one_fallback_page_and_passes(fake: FakeRedis, failure: str) -> None:
    timeout = TIMEOUT if failure in UNANSWERED else PATIENCE
    async with serving(fake.url, timeout=timeout) as visitor:
        assert await visitor.visit() == 1
        FAILURES[failure](fake)
        await _fails_and_comes_back(fake, visitor, failure, timeout)


assert FAILURES.keys() >= ALIKE


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "failure",
    [
        *("refused", "silent"),
        pytest.param("closed instead of a reply", marks=pytest.mark.slow),
        pytest.param("no reply", marks=pytest.mark.slow),
    ],
)
async def test_with_the_default_no_page_waits_longer_than_2_s_nor_counting_for_2_s(
    fake: FakeRedis, failure: str
) -> None:
    async with serving(fake.url, timeout=Settings().redis_timeout) as visitor:
        assert await visitor.visit() == 1
        FAILURES[failure](fake)
        await _fails_and_comes_back(fake, visitor, failure, 2)


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("failure", ["refused", "closed at accept", "silent", "garbage: http"])
async def test_a_redis_that_fails_from_the_start_is_a_fallback_page(
    fake: FakeRedis, failure: str
) -> None:
    FAILURES[failure](fake)
    timeout = TIMEOUT if failure in UNANSWERED else PATIENCE
    async with serving(fake.url, timeout=timeout) as visitor:
        await _fails_and_comes_back(fake, visitor, failure, timeout)


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("failure", ["no reply", "error: oom", "closed half-way", "garbage: ok"])
async def test_visits_that_wait_together_fail_together(fake: FakeRedis, failure: str) -> None:
    timeout = TIMEOUT if failure in UNANSWERED else PATIENCE
    async with serving(fake.url, timeout=timeout) as visitor:
        assert await visitor.visit() == 1
        FAILURES[failure](fake)
        # None waits past its deadline: see `serving`.
        assert await asyncio.gather(*(visitor.visit() for _ in range(64))) == [None] * 64
        assert sum(command.visits for command in fake.visits()[1:]) <= 64
        fake.heal()
        assert await visitor.counted_again() == fake.counter


@pytest.mark.gen_test
async def test_visits_waiting_for_the_next_command_fail_with_the_one_under_way(
    fake: FakeRedis,
) -> None:
    async with serving(fake.url, timeout=TIMEOUT) as visitor:
        assert await visitor.visit() == 1
        fake.answer = fake_redis.never
        first = asyncio.create_task(visitor.visit())
        await eventually(lambda: len(fake.visits()) == 2)
        rest = [asyncio.create_task(visitor.visit()) for _ in range(10)]
        assert await asyncio.gather(first, *rest) == [None] * 11
        assert [command.visits for command in fake.visits()[1:]] == [1]


@pytest.mark.gen_test
@pytest.mark.parametrize("extra", [b":99\r\n", b"+OK\r\n", b"-ERR late\r\n", b":9"])
async def test_a_second_reply_is_never_the_next_visits_number(
    fake: FakeRedis, extra: bytes
) -> None:
    async def twice(connection: fake_redis.Connection, sound: bytes) -> None:
        connection.writer.write(sound + extra)

    async with serving(fake.url) as visitor:
        fake.answer = twice
        assert [await visitor.visit() for _ in range(3)] == [1, 2, 3]
        # None of these connections was used again.
        assert len({command.connection.number for command in fake.visits()}) == 3
        await eventually(lambda: len(fake.open()) <= 1)


@pytest.mark.gen_test
async def test_a_second_reply_is_never_a_number_of_those_that_waited_for_the_first(
    fake: FakeRedis,
) -> None:
    async def twice(connection: fake_redis.Connection, sound: bytes) -> None:
        connection.writer.write(sound + b":99\r\n")

    visits = Visits(fake.url, timeout=PATIENCE)
    fake.answer = twice
    with fake.held():
        first = asyncio.create_task(visits.count())
        await eventually(lambda: len(fake.visits()) == 1)
        rest = [asyncio.create_task(visits.count()) for _ in range(2)]
        await asyncio.sleep(0)  # they wait from now on
    assert await asyncio.gather(first, *rest) == [1, 2, 3]
    assert len({command.connection.number for command in fake.visits()}) == 2
    await visits.close()


@pytest.mark.gen_test
async def test_bytes_nobody_asked_for_are_never_a_visits_number(fake: FakeRedis) -> None:
    async with serving(fake.url) as visitor:
        assert await visitor.visit() == 1
        async with visitor.losing_connection():
            fake.send(b":99\r\n")
        assert await visitor.visit() == 2
        await eventually(lambda: fake.connections[0].closed)


@pytest.mark.gen_test
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
async def test_an_idle_connection_that_redis_closed_costs_no_visit(
    fake: FakeRedis, reset: bool
) -> None:
    async with serving(fake.url) as visitor:
        assert await visitor.visit() == 1
        async with visitor.losing_connection():
            fake.close_connections(reset=reset)
        assert await visitor.visit() == 2
        assert len(fake.visits()) == 2


@pytest.mark.gen_test
async def test_an_idle_connection_that_redis_closed_is_replaced_before_a_visit(
    fake: FakeRedis,
) -> None:
    async with serving(fake.url) as visitor:
        assert await visitor.visit() == 1
        fake.close_connections()
        await eventually(lambda: len(fake.open()) == 1 and len(fake.connections) == 2)
        assert await visitor.visit() == 2
        assert fake.visits()[-1].connection is fake.connections[1]


# Names.


@pytest.mark.gen_test
async def test_a_name_that_does_not_resolve_is_a_fallback_page() -> None:
    async with serving("redis://redis.invalid", timeout=TIMEOUT) as visitor:
        assert await within(TIMEOUT, visitor.visit()) is None
        await visitor.assert_at_once()


class Resolver:
    """Stands in for the system's, for one name."""

    NAME = "redis.invalid"

    def __init__(self, answer: Callable[..., object]) -> None:
        self.answer = answer
        self.hangs: bool | None = False  # None: it does not know the name
        self.let_go = threading.Event()
        self.asked = 0

    def getaddrinfo(self, host: object, *args: object, **options: object) -> object:
        if host != self.NAME:
            return self.answer(host, *args, **options)
        self.asked += 1
        if self.hangs:
            self.let_go.wait()
        if self.hangs is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.answer("127.0.0.1", *args, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    one = Resolver(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", one.getaddrinfo)
    yield one
    one.let_go.set()
    for thread in threading.enumerate():
        if thread.name == f"look-up of {Resolver.NAME}":
            thread.join(PATIENCE)


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("hangs", [True, None], ids=["hangs", "does not know"])
async def test_a_resolver_that_fails_for_a_while(
    fake: FakeRedis, resolver: Resolver, hangs: bool | None
) -> None:
    resolver.hangs = hangs
    timeout = TIMEOUT if hangs else PATIENCE
    async with serving(f"redis://redis.invalid:{fake.port}", timeout=timeout) as visitor:
        assert await within(TIMEOUT if hangs else 0, visitor.visit()) is None
        await visitor.assert_at_once()
        asked = resolver.asked
        await eventually(lambda: resolver.asked >= asked + 2)
        await visitor.assert_at_once()
        # The look-ups that hang go on hanging: the next one must do.
        resolver.hangs = False
        assert await visitor.counted_again() == 1


@pytest.mark.gen_test
async def test_a_resolver_that_hangs_leaves_other_names_and_pages_alone(
    fake: FakeRedis, resolver: Resolver
) -> None:
    resolver.hangs = True
    async with serving(f"redis://redis.invalid:{fake.port}", timeout=TIMEOUT) as visitor:
        waiting = [asyncio.create_task(visitor.visit()) for _ in range(20)]
        await eventually(lambda: resolver.asked)
        other = asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert await asyncio.wait_for(other, PATIENCE / 2), "the other look-up hangs till the end"
        assert await asyncio.gather(*waiting) == [None] * 20


# The real Valkey's own.


class Trouble:
    """What a real Valkey is brought to, and how it is brought back."""

    @staticmethod
    @contextlib.contextmanager
    def list_as_counter(client: redis.Redis) -> Iterator[None]:
        client.rename("counter", "kept")
        client.rpush("counter", "not", "a", "number")
        yield
        client.rename("kept", "counter")

    @staticmethod
    @contextlib.contextmanager
    def text_as_counter(client: redis.Redis) -> Iterator[None]:
        client.rename("counter", "kept")
        client.set("counter", "abc")
        yield
        client.rename("kept", "counter")

    @staticmethod
    @contextlib.contextmanager
    def counter_at_its_end(client: redis.Redis) -> Iterator[None]:
        client.rename("counter", "kept")
        client.set("counter", 2**63 - 1)
        yield
        assert client.get("counter") == b"%d" % (2**63 - 1)
        client.rename("kept", "counter")

    @staticmethod
    @contextlib.contextmanager
    def replica(client: redis.Redis) -> Iterator[None]:
        with held_port() as nobody:
            client.replicaof(*nobody.getsockname())
            yield
            client.replicaof("NO", "ONE")

    @staticmethod
    @contextlib.contextmanager
    def memory_full(client: redis.Redis) -> Iterator[None]:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)

    @staticmethod
    @contextlib.contextmanager
    def another_password(client: redis.Redis) -> Iterator[None]:
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
        yield
        client.config_set("requirepass", "")

    @staticmethod
    @contextlib.contextmanager
    def not_permitted(client: redis.Redis) -> Iterator[None]:
        client.acl_setuser("default", enabled=True, commands=["-incr", "-incrby"])
        yield
        client.acl_setuser("default", enabled=True, commands=["+incr", "+incrby"])

    @staticmethod
    @contextlib.contextmanager
    def paused(client: redis.Redis) -> Iterator[None]:
        client.client_pause(20_000, all=False)
        yield
        client.client_unpause()


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("name", [name for name in vars(Trouble) if not name.startswith("_")])
async def test_trouble_of_a_real_valkey_passes(valkey: Valkey, name: str) -> None:
    timeout = TIMEOUT if name == "paused" else PATIENCE
    async with serving(valkey.url, timeout=timeout) as visitor:
        assert await visitor.visit() == 1
        with getattr(Trouble, name)(valkey.client):
            assert await within(timeout if name == "paused" else 0, visitor.visit()) is None
            await visitor.assert_at_once()
        number = await visitor.counted_again()
        # A paused Valkey may count the visit it was sent.
        assert number in ((2, 3) if name == "paused" else (2,))
        assert await visitor.visit() == number + 1 == valkey.counter()


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("name", ["replica", "counter_at_its_end"])
async def test_the_counter_stays_off_while_a_valkey_that_answers_cannot_count(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(valkey.url) as visitor:
        assert await visitor.visit() == 1
        with getattr(Trouble, name)(valkey.client):
            probes = valkey.client.info("stats")["total_connections_received"] + 3
            while valkey.client.info("stats")["total_connections_received"] < probes:
                assert await visitor.visit() is None
                await asyncio.sleep(0.01)
            lines = counters_lines(caplog)
            assert {level for level, _ in lines} == {"WARNING"}
            # At its end a visit and a probe, which adds nothing, meet it in two ways.
            assert len(lines) <= (2 if name == "counter_at_its_end" else 1)
        assert await visitor.counted_again() == 2


@pytest.mark.gen_test
async def test_a_killed_idle_connection_costs_no_visit(valkey: Valkey) -> None:
    async with serving(valkey.url) as visitor:
        for number in range(1, 4):
            assert await visitor.visit() == number
            async with visitor.losing_connection():
                assert valkey.client.client_kill_filter(_type="normal", skipme=True) == 1
        assert await visitor.visit() == 4


@pytest.mark.gen_test
async def test_a_valkey_restarted_while_nobody_looks_costs_no_visit(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looked for while it was away, the counter might be off for a moment.
    monkeypatch.setattr(counter.probing, "PROBE_EVERY", PATIENCE)
    async with serving(valkey.url) as visitor:
        assert await visitor.visit() == 1
        async with visitor.losing_connection():
            valkey.kill()
            valkey.start()
        assert await visitor.visit() == 2


@pytest.mark.gen_test
async def test_every_address_of_the_name_is_tried(
    fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def addresses(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host != "redis.invalid":
            return real(host, *arguments, **options)
        found = ("127.0.0.2", "127.0.0.1")  # the fake listens on the second only
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    async with serving(f"redis://redis.invalid:{fake.port}") as visitor:
        assert [await visitor.visit() for _ in range(2)] == [1, 2]
