"""A number that nobody was shown goes to the next visit: 2, 3, 4, and never 3, 4, 5."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from counter import Visits
from counter.batches import ANSWERS_PER_TURN
from tests.counter.test_exactly_once import SPARES
from tests.support.counting import counting
from tests.support.fake_redis import FakeRedis
from tests.support.page import ServedVisitor, serving
from tests.support.raw_http import VISIT
from tests.support.valkey import Valkey
from tests.support.waiting import eventually


def spares(valkey: Valkey) -> list[tuple[int, int]]:
    """Return the groups that Redis keeps."""
    found = valkey.client.zrange(SPARES, 0, -1, withscores=True)
    return [(int(first), int(last)) for first, last in found]  # type: ignore[str-unpack]


@asynccontextmanager
async def waiting_for_redis(
    visitor: ServedVisitor, valkey: Valkey
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Let somebody visit the page, whose number Redis gives after the context."""
    assert await visitor.visit() == 1
    port = int(visitor.url.rpartition(":")[2].strip("/"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    valkey.hang()
    writer.write(VISIT)
    await eventually(lambda: visitor.visits._link.is_busy)
    yield reader, writer
    valkey.go_on()


async def test_the_number_of_a_visitor_who_reset_the_connection_is_the_next_visits(
    valkey: Valkey,
) -> None:
    async with serving(valkey.url) as visitor:
        async with waiting_for_redis(visitor, valkey) as (_, writer):
            writer.transport.abort()
            await asyncio.sleep(0)
        await eventually(lambda: valkey.counter() == 2)
        assert [await visitor.visit() for _ in range(3)] == [2, 3, 4]
        assert valkey.counter() == 4


async def test_a_visitor_who_closed_one_side_alone_gets_the_page(valkey: Valkey) -> None:
    async with serving(valkey.url) as visitor:
        async with waiting_for_redis(visitor, valkey) as (reader, writer):
            writer.write_eof()
            await asyncio.sleep(0.05)
        assert (await reader.read()).endswith(b"<b>Visits:</b> 2")
        writer.close()
        assert await visitor.visit() == 3


async def test_a_visitor_who_goes_before_the_answer_to_a_large_batch_leaves_the_number(
    valkey: Valkey,
) -> None:
    async with counting(valkey.url) as visits:
        batch = [asyncio.create_task(visits.count()) for _ in range(300)]
        await asyncio.sleep(0)
        goes = batch[ANSWERS_PER_TURN + 50]
        batch[0].add_done_callback(lambda _: goes.cancel() and None)
        numbers = await asyncio.gather(*batch, return_exceptions=True)
        shown = [number for number in numbers if isinstance(number, int)]
        assert len(shown) == 299
        assert sorted([*shown, await visits.count() or 0]) == list(range(1, 301))
        assert await visits.count() == 301


async def test_a_visitor_who_goes_as_the_number_comes_leaves_it(valkey: Valkey) -> None:
    async with counting(valkey.url) as visits:
        assert await visits.count() == 1
        waiter = visits._batches.add()
        assert waiter is not None
        visit = asyncio.create_task(_awaiting(visits, waiter))
        waiter.add_done_callback(lambda _: visit.cancel())
        with pytest.raises(asyncio.CancelledError):
            await visit
        assert await visits.count() == 2


async def _awaiting(visits: Visits, waiter: "asyncio.Future[int | None]") -> int | None:
    """Count as a visit that has begun to wait."""
    visits._batches.add = lambda: waiter  # type: ignore[method-assign]
    try:
        return await visits.count()
    finally:
        del visits._batches.add


async def test_numbers_that_come_back_while_nobody_visits_go_to_other_replicas(
    valkey: Valkey,
) -> None:
    async with counting(valkey.url) as visits, counting(valkey.url) as other:
        assert [await visits.count() for _ in range(4)] == [1, 2, 3, 4]
        for number in (2, 3):
            visits.give_back(number)
        await eventually(lambda: spares(valkey) == [(2, 3)])
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
