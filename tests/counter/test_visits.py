"""Each visit gets its own number, and many visits take few commands."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
import uvloop
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port
from tornado.web import Application

from config import Settings
from counter import Visits
from counter.batches import ALONE, LARGE_BATCH
from server import make_app
from tests.support.counting import counting
from tests.support.fake_redis import FakeRedis, late
from tests.support.page import number_on, serving
from tests.support.program import Program
from tests.support.proxy import Proxy
from tests.support.raw_http import VISIT, closing, many_descriptors, read_answer
from tests.support.streams import Streams
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within

# The page over a real Valkey, in pytest-tornado's way.


@pytest.fixture
def app(io_loop: IOLoop, valkey: Valkey) -> Iterator[Application]:
    visits = Visits(valkey.url, timeout=PATIENCE)
    yield make_app(Settings(), visits)
    io_loop.run_sync(visits.close)


@pytest.mark.gen_test
async def test_first_visit_is_number_1(http_client: AsyncHTTPClient, base_url: str) -> None:
    answer = await http_client.fetch(base_url)
    assert (answer.code, number_on(answer.body)) == (200, 1)


@pytest.mark.gen_test
async def test_visits_at_once_get_consecutive_numbers(
    http_client: AsyncHTTPClient, base_url: str, valkey: Valkey
) -> None:
    valkey.client.set("counter", 41)
    answers = await asyncio.gather(*(http_client.fetch(base_url) for _ in range(100)))
    assert sorted(number_on(answer.body) for answer in answers) == list(range(42, 142))
    assert valkey.counter() == 141


@pytest.mark.gen_test
async def test_visits_one_by_one_are_one_script_each(
    http_client: AsyncHTTPClient, base_url: str, valkey: Valkey
) -> None:
    for number in range(1, 11):
        assert number_on((await http_client.fetch(base_url)).body) == number
    assert valkey.commands("evalsha") == 10  # the first one came in vain
    assert valkey.commands("eval") == 1
    assert valkey.commands("incrby") == 10


@pytest.mark.gen_test
async def test_what_others_add_is_seen(
    http_client: AsyncHTTPClient, base_url: str, valkey: Valkey
) -> None:
    for command, number in (("INCR", 2), ("SET counter -5", -4), ("DEL", 1)):
        await http_client.fetch(base_url)
        valkey.client.execute_command(*f"{command} counter".split()[: 3 if "SET" in command else 2])
        assert number_on((await http_client.fetch(base_url)).body) in (number, number + 1)


# Thousands of visits to the real program.


def _visit_all_at_once(
    valkey: Valkey, port: int, visits: int, connections: int
) -> list[int | None]:
    """Open the connections, and send a request on each before any is answered; until all are sent.

    Without an event loop: as many clients would cost more than the server.
    """
    with closing([]) as clients:
        for _ in range(connections):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
        numbers: list[int | None] = []
        while len(numbers) < visits:
            asking = clients[: visits - len(numbers)]
            valkey.hang()
            for client in asking:
                client.sendall(VISIT)
            valkey.go_on()
            numbers += [read_answer(client).visit for client in asking]
        return numbers


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_5000_visits_at_once_get_5000_numbers_from_few_commands(
    valkey: Valkey, program: Callable[..., Program], processes: int
) -> None:
    with many_descriptors() as most:
        server = program(
            f"--redis-url={valkey.url}",
            f"--processes={processes}",
            f"--redis-timeout={PATIENCE}",
            "--access-log=false",
        )
        server.wait_for(b"(?s)" + b".*".join([b"counter on"] * processes), PATIENCE)
        numbers = _visit_all_at_once(valkey, server.port, 5_000, min(5_000, most - 500))
    assert sorted(number or 0 for number in numbers) == list(range(1, 5_001))
    assert valkey.counter() == 5_000
    assert valkey.commands("incr", "incrby") < 1_000


# Grouping, seen from Redis.


@pytest.fixture(
    params=[pytest.param(asyncio.new_event_loop, marks=pytest.mark.slow), uvloop.new_event_loop],
    ids=["asyncio", "uvloop"],
)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine in either event loop."""

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return run


def test_visits_during_a_request_are_one_and_keep_their_order(
    run: Callable, fake: FakeRedis
) -> None:
    async def main() -> None:
        async with counting(fake.url) as visits:
            with fake.held():
                first = asyncio.create_task(visits.count())
                await eventually(lambda: fake.visits())
                group = [asyncio.create_task(visits.count()) for _ in range(100)]
                await asyncio.sleep(0)
                assert not any(task.done() for task in (first, *group))
            assert await first == 1
            assert await asyncio.gather(*group) == list(range(2, 102))
            assert await visits.count() == 102
        assert [command.visits for command in fake.visits()] == [1, 100, 1]
        assert len(fake.connections) == 1

    run(main())


def test_groups_of_a_real_valkey_keep_their_order(run: Callable, valkey: Valkey) -> None:
    async def main() -> None:
        async with counting(valkey.url) as visits:
            await visits.start(PATIENCE)
            waves = []
            for _ in range(20):
                waves += [asyncio.create_task(visits.count()) for _ in range(50)]
                await asyncio.sleep(0)
            assert await asyncio.gather(*waves) == list(range(1, 1_001))
        assert valkey.commands("incr", "incrby") <= 1 + 20  # the start asks for no number

    run(main())


def test_visitors_that_gave_up_do_not_disturb_the_others(run: Callable, fake: FakeRedis) -> None:
    async def main() -> None:
        async with counting(fake.url) as visits:
            with fake.held():
                first = asyncio.create_task(visits.count())
                await eventually(lambda: fake.visits())
                group = [asyncio.create_task(visits.count()) for _ in range(4)]
                await asyncio.sleep(0)
                for task in (first, group[1]):
                    task.cancel()
            seen = await asyncio.gather(*group, return_exceptions=True)
            numbers = [number for number in seen if isinstance(number, int)]
            assert len(numbers) == 3
            assert numbers == sorted(set(numbers))
            assert 1 < numbers[0] < numbers[-1] <= fake.counter
            assert await visits.count() == fake.counter

    run(main())


def test_visits_that_wait_at_the_end_are_answered(run: Callable, fake: FakeRedis) -> None:
    async def main() -> None:
        visits = Visits(fake.url, timeout=PATIENCE)
        with fake.held():
            under_way = asyncio.create_task(visits.count())
            await eventually(lambda: fake.visits())
            queued = asyncio.create_task(visits.count())
            await asyncio.sleep(0)
            await visits.close()
            assert await within(0, queued) is None
            assert await within(0, under_way) is None
        assert await visits.count() is None
        await eventually(lambda: not fake.open())

    run(main())


@pytest.mark.usefixtures("often_probed")
def test_nothing_is_sent_while_nobody_visits(run: Callable, fake: FakeRedis) -> None:
    async def main() -> None:
        async with counting(fake.url) as visits:
            await visits.start(PATIENCE)
            await eventually(lambda: fake.commands[-1].words[0] == "INFO")  # that it asks once
            sent = len(fake.commands)
            await asyncio.sleep(0.3)  # nothing may be, while it looks at the idle connection
            assert len(fake.commands) == sent
            assert visits.up

    run(main())


def test_a_redis_as_slow_as_a_third_of_the_deadline_counts_them_all(
    run: Callable, fake: FakeRedis
) -> None:
    async def main() -> None:
        fake.answer = late(0.6)
        # A visit waits for the command under way and its own; the third third is the machine's.
        async with counting(fake.url, timeout=1.8) as visits:
            tasks = []
            for _ in range(10):
                tasks.append(asyncio.create_task(visits.count()))
                await asyncio.sleep(0.05)
            assert await asyncio.gather(*tasks) == list(range(1, 11))

    run(main())


def test_a_visit_that_comes_during_the_start_waits_for_it_and_leaves_one_connection(
    run: Callable, fake: FakeRedis
) -> None:
    async def main() -> None:
        async with counting(fake.url) as visits:
            with fake.held():
                start = asyncio.create_task(visits.start(PATIENCE))
                await eventually(lambda: fake.commands)
                visit = asyncio.create_task(visits.count())
                await asyncio.sleep(0)
            await start
            assert await visit == 1
            assert await visits.count() == 2
            assert visits.up
            await eventually(lambda: len(fake.open()) == 1)

    run(main())


# What the URL says.


def test_database_and_password_of_the_url_are_used(run: Callable) -> None:
    async def main(fake: FakeRedis, url: str, **options: Any) -> None:
        async with counting(url, **options) as visits:
            assert await visits.count() == 1
        assert [command.words[0] for command in fake.commands] == ["AUTH", "SELECT", "EVALSHA"]
        assert fake.commands[1].words == ("SELECT", "3")

    secret = "p@ss/w:rd? #%"
    for credentials, options in (
        (f":{quote(secret, safe='')}@", {}),
        (f"user:{quote(secret, safe='')}@", {}),
        ("", {"password": lambda: secret}),
        (":another@", {"password": lambda: secret}),
    ):
        with FakeRedis(secret) as fake:
            run(main(fake, f"redis://{credentials}127.0.0.1:{fake.port}/3", **options))


@pytest.mark.gen_test
async def test_database_and_password_on_a_real_valkey(valkey: Valkey) -> None:
    valkey.client.config_set("requirepass", "se:cr@t")
    url = f"unix://:{quote('se:cr@t')}@{valkey.path}?db=3"
    async with serving(url) as visitor:
        assert [await visitor.visit() for _ in range(3)] == [1, 2, 3]
    assert valkey.counter() == 0
    assert list(valkey.client.info("keyspace")) == ["db3"]


@pytest.mark.gen_test
async def test_a_wrong_password_is_the_fallback_page(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.client.config_set("requirepass", "right-one")
    async with serving(f"unix://:wrong-one@{valkey.path}") as visitor:
        assert await visitor.visit() is None
        await visitor.assert_at_once()
        valkey.client.config_set("requirepass", "wrong-one")
        assert await visitor.counted_again() == 1
    assert "-one" not in caplog.text


# Redis over TLS: this Valkey has none, so that a proxy of the test's speaks it.


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


class TlsProxy:
    """Passes on what comes over TLS to a Unix socket."""

    def __init__(self, context: ssl.SSLContext, path: Path) -> None:
        self._path = path
        self._streams = Streams(self._serve, context)
        self.connections = 0

    async def __aenter__(self) -> int:
        listening, port = bind_unused_port()
        self._streams.listen(listening)
        return port

    async def __aexit__(self, *_: object) -> None:
        await self._streams.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        inner_reader, inner_writer = await asyncio.open_unix_connection(self._path)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, inner_writer))
                group.create_task(self._pass_on(inner_reader, writer))
        writer.close()
        inner_writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def tls(valkey: Valkey, authority: trustme.CA, *names: str) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    async with TlsProxy(context, valkey.path) as port:
        yield port


@pytest.mark.gen_test
async def test_redis_over_tls_counts(valkey: Valkey, authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with tls(valkey, authority, "localhost", "127.0.0.1") as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={quote(str(tmp_path / 'ca.pem'))}"
        async with serving(url) as visitor:
            assert await visitor.visit() == 1
            numbers = await asyncio.gather(*(visitor.visit() for _ in range(50)))
            assert sorted(map(int, numbers)) == list(range(2, 52))  # type: ignore[arg-type]
            async with visitor.losing_connection():
                valkey.client.client_kill_filter(_type="normal", skipme=True)
            assert await visitor.visit() == 52


@pytest.mark.gen_test
@pytest.mark.parametrize("wrong", ["authority", "name", "no tls"])
async def test_a_certificate_that_is_not_trusted_is_the_fallback_page(
    valkey: Valkey, authority: trustme.CA, tmp_path: Path, wrong: str, fake: FakeRedis
) -> None:
    trusted = trustme.CA() if wrong == "authority" else authority
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    name = "elsewhere.example" if wrong == "name" else "localhost"
    async with tls(valkey, authority, name) as port:
        if wrong == "no tls":
            port = fake.port
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={quote(str(tmp_path / 'ca.pem'))}"
        # What is no TLS does not answer at all.
        async with serving(url, timeout=0.5 if wrong == "no tls" else PATIENCE) as visitor:
            async with asyncio.timeout(PATIENCE / 2):
                assert await visitor.visit() is None
            await visitor.assert_at_once()
    assert valkey.counter() == 0


@pytest.mark.gen_test
async def test_past_the_limit_visits_get_the_fallback_at_once_and_the_others_their_numbers(
    fake: FakeRedis,
) -> None:
    visits = Visits(fake.url, timeout=PATIENCE, max_waiting=3)
    assert await visits.count() == 1
    with fake.held():
        under_way = asyncio.create_task(visits.count())
        await eventually(lambda: len(fake.visits()) == 2)
        waiting = [asyncio.create_task(visits.count()) for _ in range(3)]
        await asyncio.sleep(0)
        assert await within(0, visits.count()) is None
        assert visits.up
    assert await under_way == 2
    assert await asyncio.gather(*waiting) == [3, 4, 5]
    await visits.close()


@pytest.mark.gen_test
async def test_a_large_group_lets_others_have_their_turn_and_visits_are_answered_in_order(
    fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.batches.ANSWERS_PER_TURN", 1)  # for Redis to reply meanwhile
    visits = Visits(fake.url, timeout=PATIENCE)
    assert await visits.count() == 1
    answered: list[int | None] = []
    begun = asyncio.Event()

    async def visit() -> None:
        answered.append(await visits.count())
        if len(answered) > 1:
            begun.set()

    with fake.held():
        first = asyncio.create_task(visit())
        await eventually(lambda: len(fake.visits()) == 2)
        group = [asyncio.create_task(visit()) for _ in range(3000)]
        await asyncio.sleep(0)
    await first
    await begun.wait()
    assert len(answered) < len(group) / 2
    group.append(asyncio.create_task(visit()))  # soon has its number, and is not answered before
    await asyncio.gather(*group)
    assert answered == list(range(2, len(group) + 3))
    await visits.close()


@pytest.mark.gen_test
async def test_who_comes_back_at_once_is_counted_with_those_that_waited(fake: FakeRedis) -> None:
    visits = Visits(fake.url, timeout=PATIENCE)
    assert await visits.count() == 1

    async def come_twice() -> list[int | None]:
        return [await visits.count(), await visits.count()]

    with fake.held():
        twice = asyncio.create_task(come_twice())
        await eventually(lambda: len(fake.visits()) == 2)
        waiting = asyncio.create_task(visits.count())
        await asyncio.sleep(0)
    assert await twice == [2, 4]
    assert await waiting == 3
    assert len(fake.visits()) == 3
    await visits.close()


@pytest.mark.gen_test
async def test_after_a_large_batch_who_comes_back_soon_is_counted_with_those_that_waited(
    fake: FakeRedis,
) -> None:
    visits = Visits(fake.url, timeout=PATIENCE)
    assert await visits.count() == 1

    async def come_twice() -> int | None:
        await visits.count()
        await asyncio.sleep(0)
        return await visits.count()

    with fake.held():
        twice = [asyncio.create_task(come_twice()) for _ in range(LARGE_BATCH)]
        await eventually(lambda: len(fake.visits()) == 2)
        waiting = asyncio.create_task(visits.count())
        await asyncio.sleep(0)
    assert await waiting == LARGE_BATCH + 2
    assert await asyncio.gather(*twice) == list(range(LARGE_BATCH + 3, 2 * LARGE_BATCH + 3))
    assert len(fake.visits()) == 3
    await visits.close()


# A lone visitor: the loop does not sleep for a moment.


async def count_alone(visits: Visits, number: int) -> None:
    for _ in range(number):
        assert await visits.count() is not None


@pytest.mark.gen_test
async def test_while_a_lone_visit_waits_for_a_redis_that_hangs_the_process_sleeps(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.link.BUSY_POLL", 0.1)
    async with counting(valkey.url) as visits:
        await count_alone(visits, ALONE + 2)
        valkey.hang()
        spent = time.process_time()
        waiting = asyncio.create_task(visits.count())
        await asyncio.sleep(1)
        spent = time.process_time() - spent
        valkey.go_on()
        assert await waiting == ALONE + 3
    assert spent < 0.5


@pytest.mark.gen_test
async def test_a_redis_that_is_far_is_waited_for_asleep(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counter.link.BUSY_POLL", 0.02)
    with Proxy([valkey.path]) as proxy:
        proxy.to_client.delay = 0.03
        async with counting(f"redis://127.0.0.1:{proxy.port}") as visits:
            await count_alone(visits, ALONE + 2)
            spent = time.process_time()
            await count_alone(visits, 20)
            spent = time.process_time() - spent
    assert spent < 0.2
