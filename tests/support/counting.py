"""A counter of a test's own, without a server."""

import asyncio
import contextlib
import re
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import redis

from counter import Visits, process_key
from replicas import Figures, Reader, Replica, Snapshot, Telling, replicas_of
from tests.support import Caplog
from tests.support.page import counters_lines
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually

#: Seconds that a record is kept, from when a token asks for it: a day, and an hour until then.
KEPT = 25 * 60 * 60

#: As `replicas.figures.SIGN_EVERY`, so short that each group of visits is a sign.
ALWAYS = 1e-6


@contextlib.asynccontextmanager
async def counting(url: str, **options: Any) -> AsyncIterator[Visits]:
    """Count until the end of the context, and nothing beside."""
    visits = Visits(url, **{"timeout": PATIENCE} | options)
    try:
        yield visits
    finally:
        await visits.close()


def replica(
    url: str, hostname: str = "web-1", version: str = "", labels: Any = None, **options: Any
) -> contextlib.AbstractAsyncContextManager[Visits]:
    """Count until the end of the context, and write the figures, as a server does."""
    return counting(url, beside=Figures(hostname, version, labels), **options)


def reading(visits: Visits) -> contextlib.closing[Reader]:
    """Read what all processes write where these visits are counted, until the context's end."""
    return contextlib.closing(Reader(visits.new_connector()))


def replicas_in(shown: Snapshot) -> list[Replica]:
    """Return the replicas that the live page shows of a snapshot, by name."""
    return [*replicas_of(shown.records, shown.time)]


@contextlib.asynccontextmanager
async def telling(
    visits: Visits,
    look: Callable[[], Sequence[str]] | None = None,
    is_draining: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Telling]:
    """Tell what there is until the end of the context, and then goodbye."""
    figures = visits._link._beside
    assert isinstance(figures, Figures)
    one = Telling(figures, visits, is_draining, look)
    one.start()
    try:
        yield one
    finally:
        await one.close()


def permit(client: redis.Redis, *commands: str, **rules: Any) -> None:
    """Allow and forbid the default user commands, as ``+get`` and ``-get``."""
    client.acl_setuser("default", enabled=True, commands=list(commands) or None, **rules)


async def counts_on(visits: Visits, valkey: Valkey, fault: str) -> list[int]:
    """Count once, and 53 times after a fault, over the same connection; return these numbers.

    :arg fault: a command, in which PROCESS stands for the key of the process's record.
    """
    await visits.start(PATIENCE)
    assert await visits.count() == 1
    await eventually(lambda: visits._lookout._asking is None or visits._lookout._asking.done())
    valkey.client.execute_command(
        *shlex.split(fault.replace("PROCESS", process_key(visits.process_id)))
    )
    connections = valkey.client.info("stats")["total_connections_received"]
    numbers = [await visits.count() for _ in range(3)]
    numbers += await asyncio.gather(*(visits.count() for _ in range(50)))
    assert visits.up
    assert valkey.client.info("stats")["total_connections_received"] == connections
    return [number or 0 for number in numbers]


def sent_by_clients(valkey: Valkey, monitor: Any) -> list[list[str]]:
    """Return the words that clients have sent, and not what scripts ran, nor the test's own."""
    valkey.client.echo("end")
    seen = []
    while not (one := monitor.next_command())["command"].startswith("ECHO"):
        if one["client_type"] != "lua" and not one["command"].startswith(("HELLO", "CLIENT")):
            seen.append(one["command"].split())
    return seen


def assert_said(caplog: Caplog, said: str | None) -> None:
    """Assert that the counter has warned once, and how; or not at all if None."""
    lines = counters_lines(caplog)
    assert [level for level, _ in lines] == ["WARNING"] * (said is not None), lines
    assert said is None or re.match(said, lines[0][1]), lines
