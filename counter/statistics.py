"""What each process writes of itself beside the counter, and what is read of it for all to see.

All keys have the counter's name as their hash tag, so that they lie in its slot and go with its
commands (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).

===========================  ===================================================================
``{counter}:process:ID``     a hash: the ``hostname`` of the replica that the process belongs to,
                             the ``version`` it runs, its ``labels`` as ``key=value,…``, the
                             ``faults`` that it has, the ``visits`` it has shown, and its last
                             ``token`` (see `counter.delivery`); dropped a day after its last visit
``{counter}:processes``      a sorted set: ids, by the second in which each was seen
``{counter}:minutes``        a hash: the fields 0 to 299 are the last `HISTORY` seconds, each with
                             the second since 1970, what the counter held, and the visits counted
                             last
===========================  ===================================================================

`token.lua` writes them; where Redis refuses scripts, plain commands do, all but the last minutes.
Faults are written by `counter.telling`, as a replica that has some may count nothing.
"""

import asyncio
import functools
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from counter.connection import Command
from counter.connector import Connector, Opened, close

#: Seconds after which a replica that was not seen is dropped.
DAY = 24 * 60 * 60

#: Seconds between two marks that a replica is there: nobody looks more closely.
MARK_EVERY = 1.0

#: Seconds of which Redis keeps what the counter held. `token.lua` has its own, as of `DAY`.
HISTORY = 300

#: Processes that are read, those seen last. A deployment has fewer; a day's pods may be more.
MAX_PROCESSES = 1000

#: Seconds that reading a snapshot may take, connecting included.
READ_TIMEOUT = 2.0

#: What a second of the history is.
_MOMENT = re.compile(rb"([0-9]{1,12}) (-?[0-9]{1,19}) ([0-9]{1,9})")

Result = TypeVar("Result")


class ProcessStatistics:
    """What one process writes with the visits that it counts.

    :arg counter: the counter's key.
    :arg hostname: the replica's that it belongs to.
    :arg version: the label of the version that it runs, if it has one.
    :arg labels: the replica's, if it has some; without commas, and no key has an equals sign.
    """

    def __init__(
        self,
        counter: str,
        hostname: str,
        version: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._counter = counter
        self.names_key = _names_key(counter)
        self.hostname = hostname
        self.version = version
        self.labels = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        self.shown = 0
        """Visits that got a number."""
        self._marked = -math.inf

    @functools.cached_property
    def id(self) -> str:
        """What tells this process from all others; made late, as it may be forked."""
        return secrets.token_urlsafe(12)

    @property
    def key(self) -> str:
        """Where it writes."""
        return _process_key(self._counter, self.id)

    def is_due(self) -> bool:
        """Tell, once in `MARK_EVERY`, that the process is to be marked as seen."""
        now = time.monotonic()
        due = now - self._marked >= MARK_EVERY
        if due:
            self._marked = now
        return due

    def commands(self, visits: int) -> list[Command]:
        """Return what adds visits; with the first of a second also that the process was seen.

        Names are dropped by the second that this machine's clock shows. What a page says was seen
        when is by Redis's own, from what is left of the day, so clocks may differ.
        """
        visits += self.shown
        if not self.is_due():
            return [("HSET", self.key, "visits", visits)]
        return self._mark("visits", visits)

    def faults(self, kinds: Sequence[str]) -> list[Command]:
        """Return what says which faults the process has, and that it was seen."""
        first = ("HSETNX", self.key, "visits", 0)  # without a number it would not be read
        return [first, *self._mark("faults", ",".join(kinds))]

    def _mark(self, field: str, value: str | int) -> list[Command]:
        now = int(time.time())
        own = ("hostname", self.hostname, "version", self.version, "labels", self.labels)
        return [
            ("HSET", self.key, field, value, *own),
            ("EXPIRE", self.key, DAY),
            ("ZADD", self.names_key, now, self.id),
            ("ZREMRANGEBYSCORE", self.names_key, "-inf", now - DAY),
            ("EXPIRE", self.names_key, DAY),
        ]


@dataclass(frozen=True)
class Replica:
    """One replica.

    :arg hostname: its name.
    :arg visits: those that its processes of this day have shown.
    :arg seen: seconds since one of them last was seen counting, or telling its faults.
    :arg version: the label of the version that it runs, empty when it has none.
    :arg labels: its labels, if it has some.
    :arg faults: what is wrong with it, if anything is.
    """

    hostname: str
    visits: int
    seen: float
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()


@dataclass(frozen=True)
class Snapshot:
    """What stands in Redis at one moment.

    :arg time: seconds since 1970, by Redis's clock.
    :arg total: what the counter holds.
    :arg replicas: those seen within a day, by name.
    :arg refused: what Redis does not let be read of them, and why.
    """

    time: float
    total: int
    replicas: Sequence[Replica]
    refused: Sequence[str] = ()


class RefusedError(ResponseError):
    """A command that Redis does not run, which the message names, and why."""


class StatisticsReader:
    """Reads snapshots on a connection of its own, so that counting never waits for it.

    :arg connector: the way to Redis, used by nobody else.
    :arg counter: the counter's key.
    """

    def __init__(self, connector: Connector, counter: str) -> None:
        self.reason = connector.reason
        """Return why reading failed, in one text without secrets."""
        self._connector = connector
        self._counter = counter
        self._opened: Opened | None = None

    async def read(self) -> Snapshot:
        """Return a snapshot; connects when there is no connection.

        :raises ResponseError: when Redis does not let the time or the counter be read.
        :raises Exception: when there is no Redis, or it does not answer in time.
        """
        return await self._within_time(self._read)

    async def history(self) -> list[tuple[int, int]]:
        """Return the last `HISTORY` seconds in which visits were counted, the oldest first.

        :return: seconds since 1970 by Redis's clock, and what the counter held at their end.
        :raises Exception: as `read` does.
        """
        return await self._within_time(self._read_history)

    async def write(self, commands: Sequence[Command]) -> None:
        """Write something; connects when there is no connection.

        :raises ResponseError: when Redis refuses one of the commands.
        :raises Exception: when there is no Redis, or it does not answer in time.
        """
        for reply in await self._within_time(lambda opened: _ask(opened, *commands)):
            if isinstance(reply, RefusedError):
                raise reply

    async def close(self) -> None:
        """Close the connection; the next snapshot opens another."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await close(opened.redis)

    async def _within_time(self, read: Callable[[Opened], Awaitable[Result]]) -> Result:
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                if await self._connector.has_moved():
                    await self.close()
                if self._opened is None:
                    self._opened = await self._connector.connect()
                return await read(self._opened)
        except RefusedError:  # every reply has come
            raise
        except BaseException:
            await self.close()  # a reply may still come, for nobody
            raise

    async def _read_history(self, opened: Opened) -> list[tuple[int, int]]:
        now, kept = await _ask(opened, ("TIME",), ("HGETALL", minutes_key(self._counter)))
        for reply in (now, kept):
            if isinstance(reply, RefusedError):
                raise reply
        found = [_MOMENT.fullmatch(one) for one in kept[1::2]]
        moments = sorted((int(one[1]), int(one[2]), int(one[3])) for one in found if one)
        history: list[tuple[int, int]] = []
        for second, total, visits in moments:
            if second <= int(now[0]) - HISTORY:
                continue
            # After a pause: what was counted before it was so within a second of its beginning.
            if history and second > history[-1][0] + MARK_EVERY:
                history.append((history[-1][0] + int(MARK_EVERY), total - visits))
            history.append((second, total))
        return history

    async def _read(self, opened: Opened) -> Snapshot:
        now, total, ids = await _ask(
            opened,
            ("TIME",),
            ("GET", self._counter),
            ("ZREVRANGE", _names_key(self._counter), 0, MAX_PROCESSES - 1),
        )
        for reply in (now, total):
            if isinstance(reply, RefusedError):
                raise reply
        commands: list[Command] = []
        for id in [] if isinstance(ids, RefusedError) else ids:
            key = _process_key(self._counter, _text(id))
            fields = ("hostname", "visits", "version", "labels", "faults")
            commands += [("HMGET", key, *fields), ("PTTL", key)]
        replies = await _ask(opened, *commands)
        replicas = _summed(zip(replies[::2], replies[1::2], strict=True))
        refused = dict.fromkeys(
            str(one) for one in (ids, *replies) if isinstance(one, RefusedError)
        )
        return Snapshot(int(now[0]) + int(now[1]) / 1e6, int(total or 0), replicas, [*refused])


def _summed(processes: Iterable[tuple[Any, Any]]) -> list[Replica]:
    """Return the replicas, by name, that processes belong to.

    :arg processes: what each keeps, and the milliseconds until it is dropped, those seen last
        first; of each replica the first one says which version it runs, its labels and faults.
    """
    replicas: dict[str, Replica] = {}
    for kept, left in processes:
        if (
            isinstance(kept, RefusedError)
            or isinstance(left, RefusedError)
            or not all(kept[:2])
            or left <= 0
        ):
            continue  # not to be read, dropped meanwhile, or not ours
        hostname, seen = _text(kept[0]), max(0.0, DAY - left / 1000)
        one = replicas.get(hostname) or Replica(
            hostname,
            visits=0,
            seen=seen,
            version=_text(kept[2] or b""),
            labels=_labels(_text(kept[3] or b"")),
            faults=[kind for kind in _text(kept[4] or b"").split(",") if kind],
        )
        visits, seen = one.visits + int(kept[1]), min(one.seen, seen)
        replicas[hostname] = replace(one, visits=visits, seen=seen)
    return [replicas[hostname] for hostname in sorted(replicas)]


async def _ask(opened: Opened, *commands: Command) -> list[Any]:
    """Send commands in one packet, and return their replies; a `RefusedError` is one, too."""
    connection = opened.redis.connection
    assert connection is not None
    sent: Sequence[Command] = commands
    if opened.asking:
        sent = [one for command in commands for one in (("ASKING",), command)]
    await connection.send_packed_command(connection.pack_commands(sent))
    replies: list[Any] = []
    for command in sent:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(RefusedError(f"{command[0]}: {error}"))
    return replies[1::2] if opened.asking else replies


def minutes_key(counter: str) -> str:
    """Return the key of the last minutes."""
    return f"{{{counter}}}:minutes"


def _names_key(counter: str) -> str:
    return f"{{{counter}}}:processes"


def _process_key(counter: str, id: str) -> str:
    return f"{{{counter}}}:process:{id}"


def _labels(text: str) -> dict[str, str]:
    """Return what `ProcessStatistics.labels` says; an older version has written nothing."""
    return dict(one.split("=", 1) for one in text.split(",") if "=" in one)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
