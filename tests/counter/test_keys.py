"""What tokens and spare numbers leave in Redis never costs a visit its number."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis

from counter import delivery
from tests.support import Caplog, Patch
from tests.support.counting import assert_said, counting, permit, sent_by_clients
from tests.support.page import counters_lines
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually


async def test_a_group_is_one_command_and_wait_comes_after_it(valkey: Valkey) -> None:
    async with counting(valkey.url, wait=1, timeout=0.5) as visits:
        with valkey.client.monitor() as monitor:
            assert await visits.count() is None  # no replica acknowledges it
            seen = sent_by_clients(valkey, monitor)
    assert [one[0] for one in seen[:4]] == ["EVALSHA", "WAIT", "EVAL", "WAIT"]


def processes_key(client: redis.Redis) -> Any:
    return client.keys("{counter}:process:*")[0]


AT_MOST_ONCE = "counting at most once, as Redis refuses the script: "

#: What goes wrong once a visit has counted, and how the log says so; None: it mends itself.
FAULTS: dict[str, tuple[Callable[[redis.Redis], object], str | None]] = {
    "what the process keeps is of another type": (
        lambda client: client.set(processes_key(client), "x"),
        AT_MOST_ONCE + "WRONGTYPE",
    ),
    "what the process keeps is no token": (
        lambda client: client.hset(processes_key(client), "token", "x"),
        None,
    ),
    "spare numbers of another type": (
        lambda client: client.rpush("{counter}:spares", "x"),
        AT_MOST_ONCE + "WRONGTYPE",
    ),
    "spare numbers that are none": (
        lambda client: client.zadd("{counter}:spares", {"x y": 1}),
        "spare numbers that cannot be read were dropped",
    ),
    "all of it gone": (lambda client: client.delete(*client.keys("{counter}*")), None),
    "no permission for the keys": (
        lambda client: permit(client, reset_keys=True, keys=["counter"]),
        AT_MOST_ONCE + "NOPERM",
    ),
    "no permission for scripts": (
        lambda client: permit(client, "-evalsha"),
        AT_MOST_ONCE + "NOPERM .*'evalsha' command",
    ),
    "no permission to keep a token": (
        lambda client: permit(client, "-hset"),
        AT_MOST_ONCE + ".*'hset' command",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_beside_the_counter_costs_no_visit_its_number(
    valkey: Valkey, caplog: Caplog, fault: str
) -> None:
    caplog.set_level("WARNING", logger="friendlyhello.visits")
    async with counting(valkey.url) as visits:
        await visits.start(PATIENCE)
        assert await visits.count() == 1
        await eventually(lambda: visits._lookout._asking is None or visits._lookout._asking.done())
        inject, said = FAULTS[fault]
        inject(valkey.client)
        connections = valkey.client.info("stats")["total_connections_received"]
        numbers = [await visits.count() for _ in range(3)]
        if said and said.startswith("spare numbers"):
            inject(valkey.client)  # again, and it is not said again
        waves = [asyncio.create_task(visits.count()) for _ in range(50)]
        numbers += await asyncio.gather(*waves)
        first = numbers[0]
        assert first is not None
        assert numbers == list(range(first, first + 53))
        assert visits.up
        assert valkey.client.info("stats")["total_connections_received"] == connections
        assert visits.exactly_once == (said is None or not said.startswith(AT_MOST_ONCE))
    assert_said(caplog, said)


async def test_a_redis_that_runs_the_script_again_is_asked_to_after_a_while(
    valkey: Valkey, caplog: Caplog, monkeypatch: Patch
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    permit(valkey.client, "-evalsha")
    async with counting(valkey.url) as visits:
        assert [await visits.count() for _ in range(2)] == [1, 2]
        assert not visits.exactly_once
        permit(valkey.client, "+evalsha")
        monkeypatch.setattr(delivery, "REFUSED_FOR", 0)
        assert [await visits.count() for _ in range(2)] == [3, 4]
        assert visits.exactly_once
    assert [text.partition(",")[0] for _, text in counters_lines(caplog)] == [
        *("counting at most once", "counting exactly once")
    ]
