"""Reads what all processes have written beside the counter (see `counter.statistics`)."""

import asyncio
import functools
import re
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

from redis.exceptions import ResponseError

from counter.connection import Command
from counter.connector import Connector, Opened, close
from counter.statistics import DAY, HISTORIES, history_key, names_key, process_key

#: Processes that are read, those seen last. A deployment has fewer; a day's pods may be more.
MAX_PROCESSES = 1000

#: Seconds that reading a snapshot may take, connecting included.
READ_TIMEOUT = 2.0

#: Seconds after the last sign of a process at which, if others give some, it is taken for ended.
SILENT_AFTER = 5.0

#: What is read of a process.
_FIELDS = (
    *("hostname", "visits", "version", "labels", "faults"),
    *("marked", "started", "state", "away"),
)

_MARKED = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ([0-9]{1,16})")
_SPELL = re.compile(r"([0-9]{1,12}\.[0-9]{1,6}) ([0-9]{1,12}\.[0-9]{1,6}) (\S*)")
_STEP = re.compile(r"([0-9]{1,12})((?: \S*=[0-9]{1,16})*)")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")

#: A second at which a step begins, and the visits in it by version.
Moment = tuple[int, Mapping[str, int]]

#: All of a replica's processes have said that they are to stop, or have stopped; or none was seen
#: for `SILENT_AFTER`, while others were.
State = Literal["", "draining", "gone", "silent"]

Result = TypeVar("Result")


class Spell(NamedTuple):
    """A time in which a process was without Redis."""

    start: float
    """Seconds since 1970, by Redis's clock."""
    end: float
    """The same."""
    reason: str
    """Why, without secrets."""


@dataclass(frozen=True)
class Process:
    """What one process has written of itself.

    :arg id: what tells it from all others.
    :arg hostname: the replica's that it belongs to.
    :arg visits: those that it has shown.
    :arg seen: seconds since it last was seen counting, or telling something.
    :arg seen_at: when that was: seconds since 1970, by Redis's clock; without scripts, its own.
    :arg version: the label of the version that it runs, empty when it has none.
    :arg labels: the replica's, if it has some.
    :arg faults: what is wrong with it, if anything is.
    :arg started: when it began, by the same clock; 0 where an older version has not written it.
    :arg state: "draining" or "gone" once it has said so, else empty.
    :arg away: the last times in which it was without Redis.
    :arg marked: when the script last saw it, and what it had shown before that.
    """

    id: str
    hostname: str
    visits: int
    seen: float
    seen_at: float
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    started: float = 0.0
    state: str = ""
    away: Sequence[Spell] = ()
    marked: tuple[float, int] | None = None


@dataclass(frozen=True)
class Replica:
    """One replica.

    :arg hostname: its name.
    :arg visits: those that its processes of this day have shown.
    :arg seen: seconds since one of them last was seen counting, or telling something.
    :arg version: the label of the version that it runs, empty when it has none.
    :arg labels: its labels, if it has some.
    :arg faults: what is wrong with it, if anything is.
    :arg state: what is the matter with it besides, if anything is.
    """

    hostname: str
    visits: int
    seen: float
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    state: State = ""


@dataclass(frozen=True)
class Snapshot:
    """What stands in Redis at one moment.

    :arg time: seconds since 1970, by Redis's clock.
    :arg total: what the counter holds.
    :arg processes: those seen within a day, the one seen last first.
    :arg moments: what was asked for of the `HISTORIES`: the steps with visits, the oldest first.
        With those that each process has shown since it was marked, it is all that was shown.
    :arg refused: what Redis does not let be read of the processes, and why.
    :arg refused_histories: the same of the histories.
    """

    time: float
    total: int
    processes: Sequence[Process] = ()
    moments: Mapping[str, Sequence[Moment]] = field(default_factory=dict)
    refused: Sequence[str] = ()
    refused_histories: Sequence[str] = ()

    @functools.cached_property
    def replicas(self) -> Sequence[Replica]:
        """The replicas that the processes belong to, by name.

        The process seen last says which version its replica runs, its labels and faults.
        """
        latest = latest_of(self.processes)
        found = sorted(by_hostname(self.processes).items())
        return [_replica(those, latest) for _, those in found]


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

    async def read(self, histories: Iterable[str] = ()) -> Snapshot:
        """Return a snapshot; connects when there is no connection.

        :arg histories: the names of those that are to be in it.
        :raises ResponseError: when Redis does not let the time or the counter be read.
        :raises Exception: when there is no Redis, or it does not answer in time.
        """
        return await self._within_time(lambda opened: self._read(opened, [*histories]))

    async def write(self, commands_at: Callable[[float], Sequence[Command]]) -> None:
        """Write something; connects when there is no connection.

        :arg commands_at: returns the commands, given the seconds since 1970 by Redis's clock, or
            by this machine's where Redis does not tell.
        :raises ResponseError: when Redis refuses one of the commands.
        :raises Exception: when there is no Redis, or it does not answer in time.
        """

        async def write(opened: Opened) -> list[Any]:
            (now,) = await _ask(opened, ("TIME",))
            seconds = time.time() if isinstance(now, RefusedError) else _seconds(now)
            return await _ask(opened, *commands_at(seconds))

        for reply in await self._within_time(write):
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

    async def _read(self, opened: Opened, histories: Sequence[str]) -> Snapshot:
        (found,) = await _ask(
            opened, ("ZREVRANGE", names_key(self._counter), 0, MAX_PROCESSES - 1, "WITHSCORES")
        )
        ids = {} if isinstance(found, RefusedError) else dict(zip(*[iter(found)] * 2, strict=True))
        keys = [process_key(self._counter, _text(id)) for id in ids]
        now, total, *replies = await _ask_at_once(
            opened,
            ("TIME",),
            ("GET", self._counter),
            *(("HGETALL", history_key(self._counter, one)) for one in histories),
            *(("HMGET", key, *_FIELDS) for key in keys),
            *(("PTTL", key) for key in keys),
        )
        for reply in (now, total):
            if isinstance(reply, RefusedError):
                raise reply
        kept, replies = replies[: len(histories)], replies[len(histories) :]
        both = zip(replies[: len(keys)], replies[len(keys) :], strict=True)
        processes = [
            _process(_text(id), float(score), *one)
            for (id, score), one in zip(ids.items(), both, strict=True)
            if _is_process(*one)
        ]
        moments = {
            last: _moments([] if isinstance(one, RefusedError) else one, last, now, processes)
            for last, one in zip(histories, kept, strict=True)
        }
        refused = _refused(found, *replies), _refused(*kept)
        return Snapshot(_seconds(now), int(total or 0), processes, moments, *refused)


def by_hostname(processes: Iterable[Process]) -> Mapping[str, Sequence[Process]]:
    """Return the processes of each replica, in their order."""
    replicas: dict[str, list[Process]] = defaultdict(list)
    for one in processes:
        replicas[one.hostname].append(one)
    return replicas


def latest_of(processes: Iterable[Process]) -> float:
    """Return the seconds since one of them was last seen that is not to stop.

    One that says goodbye is seen, and makes nobody silent who had no visits for a while.
    """
    return min((one.seen for one in processes if not one.state), default=0.0)


def has_gone(processes: Sequence[Process]) -> bool:
    """Tell whether all of a replica's processes have said goodbye."""
    return _said(processes) == {"gone"}


def state_of(processes: Sequence[Process], latest: float) -> State:
    """Return what is the matter with a replica.

    :arg processes: its own.
    :arg latest: see `latest_of`, of all replicas.
    """
    if has_gone(processes):
        return "gone"
    if min(one.seen for one in processes) > latest + SILENT_AFTER:
        return "silent"
    return "" if "" in _said(processes) else "draining"


def _said(processes: Sequence[Process]) -> set[str]:
    """Return what they say; those seen long before the last one have ended without a word."""
    seen = min(one.seen for one in processes)
    return {one.state for one in processes if one.seen <= seen + SILENT_AFTER}


def _replica(processes: Sequence[Process], latest: float) -> Replica:
    first = processes[0]
    return Replica(
        first.hostname,
        sum(one.visits for one in processes),
        min(one.seen for one in processes),
        first.version,
        first.labels,
        first.faults,
        state_of(processes, latest),
    )


def _refused(*replies: Any) -> list[str]:
    """Return what was refused, each once."""
    return [*dict.fromkeys(str(one) for one in replies if isinstance(one, RefusedError))]


def _is_process(kept: Any, left: Any) -> bool:
    """Tell whether it may be read, has not been dropped meanwhile, and is one of ours."""
    is_read = not isinstance(kept, RefusedError) and not isinstance(left, RefusedError)
    return is_read and all(kept[:2]) and left > 0


def _process(id: str, seen_at: float, kept: Sequence[bytes | None], left: int) -> Process:
    """Return a process; an older version may have written less.

    :arg left: the milliseconds until Redis drops it.
    """
    words = [_text(one or b"") for one in kept]
    hostname, visits, version, labels, faults, marked, started, state, away = words
    mark = _MARKED.fullmatch(marked)
    return Process(
        id,
        hostname,
        int(visits),
        max(0.0, DAY - left / 1000),
        seen_at,
        version,
        dict(one.split("=", 1) for one in labels.split(",") if "=" in one),
        [kind for kind in faults.split(",") if kind],
        float(started) if _SECONDS.fullmatch(started) else 0.0,
        state if state in ("draining", "gone") else "",
        [Spell(float(one[1]), float(one[2]), _decoded(one[3])) for one in _SPELL.finditer(away)],
        (float(mark[1]), int(mark[2])) if mark else None,
    )


def _moments(
    kept: Sequence[bytes], last: str, now: Sequence[bytes], processes: Iterable[Process]
) -> list[Moment]:
    """Return the steps of a history in which visits were shown, the oldest first.

    :arg kept: its fields and values.
    :arg now: Redis's time.
    :arg processes: what they have shown since they were marked was so within a second of that.
    """
    step, steps = HISTORIES[last]
    newest = int(now[0]) // step * step
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for one in filter(None, map(_STEP.fullmatch, map(_text, kept[1::2]))):
        for word in one[2].split():
            version, _, visits = word.rpartition("=")
            found[int(one[1])][_decoded(version)] += int(visits)
    for process in processes:
        if process.marked and process.visits > process.marked[1]:
            start = int(process.marked[0] // step) * step
            found[start][process.version] += process.visits - process.marked[1]
    begins = newest - step * steps
    return [(start, found[start]) for start in sorted(found) if begins < start <= newest]


async def _ask_at_once(opened: Opened, *commands: Command) -> list[Any]:
    """Send commands that see the same moment, as far as Redis allows; replies as of `_ask`."""
    if opened.asking:  # which a transaction does not pass on
        return await _ask(opened, *commands)
    *_, done = await _ask(opened, ("MULTI",), *commands, ("EXEC",))
    if not isinstance(done, list):  # it may not, or may not send one of them
        return await _ask(opened, *commands)
    return [
        RefusedError(f"{command[0]}: {reply}") if isinstance(reply, ResponseError) else reply
        for command, reply in zip(commands, done, strict=True)
    ]


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


def _seconds(now: Sequence[bytes]) -> float:
    return int(now[0]) + int(now[1]) / 1e6


def _decoded(word: str) -> str:
    return unquote(word, errors="replace")


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
