"""The statistics of each replica, kept in Redis beside the counter.

A replica has a hash of its own, which Redis drops a day after its last visit, and its name stands
in a sorted set, from which every replica that counts drops the names of those. All keys have the
counter's name as their hash tag, so that they lie in its slot and go with its commands
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).

============================  ==================================================================
``{counter}:replica:HOST``    a hash: ``visits`` that HOST has counted, the ``version`` it runs
``{counter}:replicas``        a sorted set: hosts, by the second in which each was seen
============================  ==================================================================
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from counter.connection import Command
from counter.connector import Connector, close

#: Seconds after which a replica that was not seen is dropped.
DAY = 24 * 60 * 60

#: Seconds between two marks that a replica is there: nobody looks more closely.
MARK_EVERY = 1.0

#: Replicas that are read, those seen last. A deployment has fewer; a day's pods may be more.
MAX_REPLICAS = 1000

#: Seconds that reading a snapshot may take, connecting included.
READ_TIMEOUT = 2.0


class ReplicaStatistics:
    """What one replica writes with the visits that it counts.

    :arg counter: the counter's key.
    :arg hostname: the replica's.
    :arg version: the label of the version that it runs, if it has one.
    """

    def __init__(self, counter: str, hostname: str, version: str = "") -> None:
        self._names = _names_key(counter)
        self._key = _replica_key(counter, hostname)
        self._hostname = hostname
        self._version = version
        self._marked = 0.0

    def commands(self, visits: int) -> list[Command]:
        """Return what adds visits; with the first of a second also its name, and that it was seen.

        Names are dropped by the second that this machine's clock shows. What a page says was seen
        when is by Redis's own, from what is left of the day, so clocks may differ.
        """
        now = time.time()
        add: Command = ("HINCRBY", self._key, "visits", visits)
        if 0 <= now - self._marked < MARK_EVERY:
            return [add]
        self._marked = now
        return [
            add,
            ("HSET", self._key, "version", self._version),
            ("EXPIRE", self._key, DAY),
            ("ZADD", self._names, int(now), self._hostname),
            ("ZREMRANGEBYSCORE", self._names, "-inf", int(now) - DAY),
            ("EXPIRE", self._names, DAY),
        ]


@dataclass(frozen=True)
class Replica:
    """One replica.

    :arg hostname: its name.
    :arg visits: those that it has counted.
    :arg seen: seconds since it last was seen counting.
    :arg version: the label of the version that it runs, empty when it has none.
    """

    hostname: str
    visits: int
    seen: float
    version: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What stands in Redis at one moment.

    :arg time: seconds since 1970, by Redis's clock.
    :arg total: what the counter holds.
    :arg replicas: those seen within a day, by name.
    """

    time: float
    total: int
    replicas: Sequence[Replica]


class StatisticsReader:
    """Reads snapshots on a connection of its own, so that counting never waits for it.

    :arg connector: the way to Redis, used by nobody else.
    :arg counter: the counter's key.
    """

    def __init__(self, connector: Connector, counter: str) -> None:
        self._connector = connector
        self._counter = counter
        self._redis: Redis | None = None

    async def read(self) -> Snapshot:
        """Return a snapshot; connects when there is no connection.

        :raises Exception: when there is no Redis, or it does not answer in time.
        """
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                if await self._connector.has_moved():
                    await self.close()
                if self._redis is None:
                    self._redis = await self._connector.connect()
                return await self._read(self._redis)
        except BaseException:
            await self.close()  # a reply may still come, for nobody
            raise

    async def close(self) -> None:
        """Close the connection; the next snapshot opens another."""
        redis, self._redis = self._redis, None
        if redis is not None:
            await close(redis)

    async def _read(self, redis: Redis) -> Snapshot:
        now, total, names = await _ask(
            redis,
            ("TIME",),
            ("GET", self._counter),
            ("ZREVRANGE", _names_key(self._counter), 0, MAX_REPLICAS - 1),
        )
        for reply in (now, total):
            if isinstance(reply, ResponseError):
                raise reply
        hostnames = [] if isinstance(names, ResponseError) else sorted(map(_text, names))
        commands: list[Command] = []
        for hostname in hostnames:
            key = _replica_key(self._counter, hostname)
            commands += [("HMGET", key, "visits", "version"), ("PTTL", key)]
        replies = iter(await _ask(redis, *commands))
        found = []
        for hostname, kept, left in zip(hostnames, replies, replies, strict=True):
            if (
                isinstance(kept, list) and kept[0] and left > 0
            ):  # else dropped meanwhile, or not ours
                seen = max(0.0, DAY - left / 1000)
                found.append(Replica(hostname, int(kept[0]), seen, _text(kept[1] or b"")))
        return Snapshot(int(now[0]) + int(now[1]) / 1e6, int(total or 0), found)


async def _ask(redis: Redis, *commands: Command) -> list[Any]:
    """Send commands in one packet, and return their replies; an error is one, too."""
    connection = redis.connection
    assert connection is not None
    await connection.send_packed_command(connection.pack_commands(commands))
    replies = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def _names_key(counter: str) -> str:
    return f"{{{counter}}}:replicas"


def _replica_key(counter: str, hostname: str) -> str:
    return f"{{{counter}}}:replica:{hostname}"


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
