"""Each visit gets its own number, and many visits take few commands."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
import uvloop

from counter import Visits
from counter.batches import ALONE, LARGE_BATCH
from tests.support import Patch
from tests.support.counting import counting
from tests.support.fake_redis import FakeRedis, late
from tests.support.page import serving
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within


@pytest.fixture(
    params=[pytest.param(asyncio.new_event_loop, marks=pytest.mark.slow), uvloop.new_event_loop],
    ids=["asyncio", "uvloop"],
    autouse=True,
)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    found: Callable[[], asyncio.AbstractEventLoop] = request.param
    return found


async def test_visits_are_one_script_each_or_fewer_and_numbers_consecutive(valkey: Valkey) -> None:
    async with serving(valkey.url) as visitor:
        for number in range(1, 11):
            assert await visitor.visit() == number
        assert valkey.commands("evalsha") == 10  # the first one came in vain
        assert valkey.commands("eval") == 1
        assert valkey.commands("incrby") == 11  # the first one began a record
        numbers = await asyncio.gather(*(visitor.visit() for _ in range(200)))
        assert sorted(number or 0 for number in numbers) == list(range(11, 211))
        assert valkey.counter() == 210
        assert valkey.commands("incrby") < 11 + 200 / 5
        for command, number in (("INCR counter", 212), ("SET counter -5", -4), ("DEL counter", 1)):
            valkey.client.execute_command(*command.split())
            assert await visitor.visit() == number, "what others add is seen"


@contextlib.asynccontextmanager
async def under_way(
    fake: FakeRedis, visit: Callable[[Visits], Coroutine[Any, Any, Any]], **options: Any
) -> AsyncIterator[tuple[Visits, "asyncio.Task[Any]", Callable[[], None]]]:
    """Hold back the reply to a visit until it is let go; one was counted before."""
    async with counting(fake.url, **options) as visits:
        assert await visits.count() == 1
        with fake.held() as let_go:
            first = asyncio.create_task(visit(visits))
            await eventually(lambda: len(fake.visits()) == 2)
            yield visits, first, let_go


async def test_visits_during_a_request_are_one_in_order_up_to_a_limit(fake: FakeRedis) -> None:
    async with under_way(fake, Visits.count, max_waiting=100) as (visits, first, let_go):
        group = [asyncio.create_task(visits.count()) for _ in range(100)]
        await asyncio.sleep(0)
        assert await within(0, visits.count()) is None, "past the limit there is no number"
        assert visits.up
        assert not any(task.done() for task in (first, *group))
        let_go()
        assert await asyncio.gather(first, *group) == list(range(2, 103))
        assert await visits.count() == 103
    assert [command.visits for command in fake.visits()] == [1, 1, 100, 1]
    assert len(fake.connections) == 1


async def test_visits_that_wait_at_the_end_are_answered(fake: FakeRedis) -> None:
    async with under_way(fake, Visits.count) as (visits, first, _):
        queued = asyncio.create_task(visits.count())
        await asyncio.sleep(0)
        await visits.close()
        assert await within(0, queued) is None
        assert await within(0, first) is None
        assert await visits.count() is None
    await eventually(lambda: not fake.open())


async def test_a_large_group_leaves_others_their_turn(fake: FakeRedis, monkeypatch: Patch) -> None:
    monkeypatch.setattr("counter.batches.ANSWERS_PER_TURN", 1)  # for Redis to reply meanwhile
    answered: list[int | None] = []
    begun = asyncio.Event()

    async def visit(visits: Visits) -> None:
        answered.append(await visits.count())
        if len(answered) > 1:
            begun.set()

    async with under_way(fake, visit) as (visits, first, let_go):
        group = [asyncio.create_task(visit(visits)) for _ in range(3000)]
        await asyncio.sleep(0)
        let_go()
        await first
        await begun.wait()
        assert len(answered) < len(group) / 2
        # Soon has its number, and is not answered before.
        group.append(asyncio.create_task(visit(visits)))
        await asyncio.gather(*group)
    assert answered == list(range(2, len(group) + 3))


@pytest.mark.parametrize("number", [1, LARGE_BATCH])
async def test_who_comes_back_is_counted_with_those_waiting(fake: FakeRedis, number: int) -> None:
    async def come_twice(visits: Visits) -> int | None:
        await visits.count()
        if number > 1:  # after a large batch, soon is early enough
            await asyncio.sleep(0)
        return await visits.count()

    async def all_come_twice(visits: Visits) -> list[int | None]:
        return await asyncio.gather(*(come_twice(visits) for _ in range(number)))

    async with under_way(fake, all_come_twice) as (visits, twice, let_go):
        waiting = asyncio.create_task(visits.count())
        await asyncio.sleep(0)
        let_go()
        assert await waiting == number + 2
        assert await twice == list(range(number + 3, 2 * number + 3))
    assert len(fake.visits()) == 3


async def test_a_redis_as_slow_as_a_third_of_the_deadline_counts_them_all(fake: FakeRedis) -> None:
    fake.answer = late(0.6)
    # A visit waits for the command under way and its own; the third third is the machine's.
    async with counting(fake.url, timeout=1.8) as visits:
        tasks = []
        for _ in range(10):
            tasks.append(asyncio.create_task(visits.count()))
            await asyncio.sleep(0.05)
        assert await asyncio.gather(*tasks) == list(range(1, 11))


@pytest.mark.usefixtures("often_probed")
async def test_a_visit_during_the_start_waits_for_it_and_nothing_is_sent_while_nobody_visits(
    fake: FakeRedis,
) -> None:
    async with counting(fake.url) as visits:
        with fake.held():
            start = asyncio.create_task(visits.start(PATIENCE))
            await eventually(lambda: fake.commands)
            visit = asyncio.create_task(visits.count())
            await asyncio.sleep(0)
        await start
        assert [await visit, await visits.count()] == [1, 2]
        await eventually(lambda: "INFO" in [one.words[0] for one in fake.commands])  # asked once
        await eventually(lambda: len(fake.open()) == 1)
        sent = len(fake.commands)
        await asyncio.sleep(0.3)  # nothing may be, while it looks at the idle connection
        assert len(fake.commands) == sent
        assert visits.up


SECRET = "p@ss/w:rd? #%"


@pytest.mark.parametrize("credentials", [":SECRET@", "user:SECRET@", "", ":another@"])
async def test_database_and_password_are_used(valkey: Valkey, credentials: str) -> None:
    is_given = "SECRET" not in credentials  # beside the URL
    user: dict[str, Any] = {"passwords": [f"+{SECRET}"], "commands": ["+@all"], "keys": ["*"]}
    valkey.client.acl_setuser("user", enabled=True, **user)
    valkey.client.config_set("requirepass", SECRET)
    valkey.client.config_resetstat()
    with Proxy([valkey.path]) as proxy:
        words = credentials.replace("SECRET", quote(SECRET, safe=""))
        url = f"redis://{words}127.0.0.1:{proxy.port}/3"
        async with counting(url, password=(lambda: SECRET) if is_given else None) as visits:
            assert await visits.count() == 1
    assert {*valkey.client.info("keyspace")} == {"db3"}
    # Connecting takes no command but AUTH and SELECT.
    assert valkey.commands("auth") == valkey.commands("select") == 1
    assert valkey.commands("hello", "client|setinfo", "ping", "role") == 0


@pytest.mark.usefixtures("patient_probes")
@pytest.mark.parametrize("wrong", ["", "authority", "name"])
async def test_redis_over_tls_counts_with_a_certificate_that_is_trusted_alone(
    valkey: Valkey, tmp_path: Path, wrong: str
) -> None:
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    (trustme.CA() if wrong == "authority" else authority).cert_pem.write_to_path(file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    name = "elsewhere.example" if wrong == "name" else "localhost"
    authority.issue_cert(name).configure_cert(context)
    with Proxy([valkey.path], context) as proxy:
        url = f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={quote(str(file))}"
        async with serving(url) as visitor:
            if wrong:
                async with asyncio.timeout(PATIENCE / 2):
                    assert await visitor.visit() is None
                await visitor.assert_at_once(5)
                assert valkey.counter() == 0
                return
            assert await visitor.visit() == 1
            async with visitor.losing_connection():
                valkey.client.client_kill_filter(_type="normal", skipme=True)
            assert await visitor.visit() == 2


async def test_after_visits_that_came_alone_the_next_waits_for_no_others(valkey: Valkey) -> None:
    in_the_same_turn: list[bool] = []
    async with counting(valkey.url) as visits:
        for _ in range(ALONE + 3):
            visit = asyncio.create_task(visits.count())
            await asyncio.sleep(0)
            in_the_same_turn.append(visits._link.is_busy)
            assert await visit is not None
    assert in_the_same_turn[2:] == [False] * (ALONE - 1) + [True, True]


async def test_a_lone_visit_waits_asleep_for_redis(valkey: Valkey, monkeypatch: Patch) -> None:
    monkeypatch.setattr("counter.link.BUSY_POLL", 0.02)
    with Proxy([valkey.path]) as proxy:
        async with counting(f"redis://127.0.0.1:{proxy.port}") as visits:
            for number, delay, most in ((1, 1.0, 0.5), (20, 0.03, 0.2)):
                for _ in range(ALONE + 2):
                    await visits.count()
                proxy.to_client.delay = delay
                before = time.process_time()
                for _ in range(number):
                    assert await visits.count() is not None
                assert time.process_time() - before < most
                proxy.to_client.delay = 0.0
