"""How visits are counted while nothing is wrong: in groups, in order, each once."""

import asyncio
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.web import Application

from config import Settings
from server import make_app
from tests.conftest import Program, Valkey
from tests.fake_redis import FakeRedis
from tests.page import eventually, number_on, serving
from visits import Visits


async def _visit_all(port: int, visitors: int) -> list[int | None]:
    """Visit on so many connections, all of them open before the first asks."""
    connections = []
    for _ in range(visitors):
        connections.append(await asyncio.open_connection("127.0.0.1", port))
    for _, writer in connections:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    return [number_on(answer.partition(b"\r\n\r\n")[2]) for answer in answers]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for thousands of connections, here and in the programs that are started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 12_000 if hard == resource.RLIM_INFINITY else min(hard, 12_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_5000_concurrent_visits_get_5000_consecutive_numbers_in_few_commands(
    program, valkey: Valkey
) -> None:
    # The numbers are what is asked for here, not the time: a busy machine may take its own.
    server: Program = program(
        f"--redis-url={valkey.url}", "--access-log=false", "--redis-timeout=30"
    )
    numbers = asyncio.run(_visit_all(server.port, 5000))
    assert sorted(numbers) == list(range(1, 5001))
    assert valkey.counter() == 5000
    assert valkey.commands("incr", "incrby") < 1000


@pytest.mark.gen_test
async def test_numbers_are_handed_out_in_the_order_of_arrival(valkey: Valkey) -> None:
    visits = Visits(valkey.url)
    for first in (1, 101):
        numbers = await asyncio.gather(*(visits.count() for _ in range(100)))
        assert numbers == list(range(first, first + 100))
    await visits.close()


@pytest.mark.gen_test
async def test_one_visit_sends_incr_and_those_that_wait_one_incrby(fake: FakeRedis) -> None:
    visits = Visits(fake.url)
    assert await visits.count() == 1
    assert [command.words for command in fake.commands] == [("INCR", "counter")]
    under_way = asyncio.create_task(visits.count())
    while len(fake.commands) < 2:
        await asyncio.sleep(0)
        if not under_way.done():
            waiting = [asyncio.create_task(visits.count()) for _ in range(7)]
            break
    assert await under_way == 2
    assert await asyncio.gather(*waiting) == list(range(3, 10))
    assert [c.words for c in fake.commands[1:]] in (
        [("INCR", "counter"), ("INCRBY", "counter", "7")],
        [("INCRBY", "counter", "8")],  # all eight before the first was sent
    )
    await visits.close()


@pytest.mark.gen_test
async def test_counting_takes_no_command_but_those_that_count(fake: FakeRedis) -> None:
    visits = Visits(fake.url)
    await visits.start(1)
    for _ in range(3):
        await visits.count()
    assert [c.words[0] for c in fake.commands] == ["PING", "INCR", "INCR", "INCR"]
    assert len(fake.connections) == 1
    await visits.close()


@pytest.mark.gen_test
async def test_visitor_who_gives_up_leaves_the_others_their_numbers(valkey: Valkey) -> None:
    visits = Visits(valkey.url)
    assert await visits.count() == 1
    waiting = [asyncio.create_task(visits.count()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[2].cancel()
    numbers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(numbers.pop(2), asyncio.CancelledError)
    assert len(set(numbers)) == 4
    assert await visits.count() == valkey.counter()
    await visits.close()


@pytest.mark.gen_test
async def test_visits_that_wait_when_the_counter_is_closed_are_answered(fake: FakeRedis) -> None:
    fake.silent = True
    visits = Visits(fake.url)
    waiting = [asyncio.create_task(visits.count()) for _ in range(5)]
    await eventually(lambda: fake.commands)
    await visits.close()
    assert await asyncio.gather(*waiting) == [None] * 5
    assert await visits.count() is None


class TestWithPytestTornado:
    """The application through pytest-tornado's own fixtures."""

    @pytest.fixture
    def app(self, valkey: Valkey, io_loop: IOLoop) -> Iterator[Application]:
        visits = Visits(valkey.url)
        yield make_app(Settings(name="pytest"), visits)
        io_loop.run_sync(visits.close)

    @pytest.mark.gen_test
    async def test_page_greets_and_counts(
        self, http_client: AsyncHTTPClient, base_url: str
    ) -> None:
        for number in (1, 2):
            answer = await http_client.fetch(base_url)
            assert answer.body.startswith(b"<h3>Hello pytest!</h3>")
            assert number_on(answer.body) == number


def test_database_and_password_of_the_url_are_used(valkey: Valkey, program) -> None:
    valkey.client.config_set("requirepass", "s3cret/?#@")
    password = "s3cret%2F%3F%23%40"
    server = program(f"--redis-url=unix://:{password}@{valkey.path}?db=3")
    assert [server.visits() for _ in range(2)] == [1, 2]
    server.signal()
    assert server.wait() == 0
    assert b"s3cret" not in server.log
    assert "db3" in valkey.client.info("keyspace")


class _Tls:
    """TLS in front of a Valkey, for ``rediss://``."""

    def __init__(self, valkey: Valkey, folder: Path) -> None:
        authority = trustme.CA()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self.context)
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self.valkey = valkey
        self.tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> str:
        self.server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self.context, family=socket.AF_INET
        )
        return f"rediss://localhost:{self.server.sockets[0].getsockname()[1]}/0"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(self.valkey.path))

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


@pytest.mark.gen_test
async def test_redis_over_tls_counts_when_its_certificate_is_trusted(
    valkey: Valkey, folder: Path
) -> None:
    tls = _Tls(valkey, folder)
    url = await tls.listen()
    async with serving(f"{url}?ssl_ca_certs={tls.authority}") as visitor:
        assert [await visitor.visit() for _ in range(3)] == [1, 2, 3]
    async with serving(url) as visitor:
        assert await visitor.visit() is None
    assert valkey.counter() == 3
    tls.server.close()
