"""Reads what all processes have written (see `replicas.keys`)."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from counter import KEY, Connector, packed
from replicas.keys import HISTORIES, NAMES, history_key
from replicas.known import Known, command_for
from replicas.link import Link, RefusedError, seconds
from replicas.records import MAX_WORDS, Record, decoded
from replicas.turns import in_turns

#: The most processes to read: the most recently seen. A deployment has fewer, but the pods of a day
#: may be more.
MAX_PROCESSES = 1000

#: How many times to try a look, until no record changes during it.
TRIES = 4

_STEP = re.compile(r"([0-9]{1,12})((?: \S*=[0-9]{1,16})*)")

#: The second at which a step begins, and its visits by version.
Moment = tuple[int, Mapping[str, int]]


@dataclass(frozen=True)
class Snapshot:
    """What stands in Redis at one moment.

    :arg time: seconds since 1970, by Redis's clock.
    :arg total: the number in the counter.
    :arg records: of the processes seen within a day, the most recently seen first.
    :arg moments: the histories that were asked for: of each, the steps with visits, the oldest
        first. They include the visits that each process has shown since its last sign.
    :arg refused: the commands that Redis refused when the processes were read, and why.
    :arg refused_histories: the same for the histories.
    """

    time: float
    total: int
    records: Sequence[Record] = ()
    moments: Mapping[str, Sequence[Moment]] = field(default_factory=dict)
    refused: Sequence[str] = ()
    refused_histories: Sequence[str] = ()


class Reader:
    """Reads snapshots.

    :arg connector: the way to Redis. Nothing else may use it.
    """

    def __init__(self, connector: Connector) -> None:
        self.reason = connector.reason
        """Return why reading failed, without secrets."""
        self._link = Link(connector)
        self._known = Known()

    async def read(self, histories: Iterable[str] = ()) -> Snapshot:
        """Return a snapshot. If there is no connection, open one.

        :arg histories: the names of the histories to read.
        :raises ResponseError: when Redis refuses to tell the time or the counter.
        :raises Exception: when there is no Redis, or it does not answer in time.
        """
        return await self._link.within_time(lambda: self._read([*histories]))

    def close(self) -> None:
        """Close the connection, and forget all records. The next snapshot opens another."""
        self._link.close()
        self._known.forget()

    async def _read(self, histories: Sequence[str]) -> Snapshot:
        ids = self._known.begin()
        for _ in range(TRIES):
            now, total, found, kept, records = await self._ask(histories, ids)
            names = [] if isinstance(found, RefusedError) else found
            changed = await self._known.take_names(_scores(names), now)
            async for id, record in in_turns(zip(ids, records, strict=True)):
                self._known.take(id, record)
            if set(changed) <= set(ids):
                break
            ids = [id for id in dict.fromkeys((*ids, *changed)) if id in self._known]
        known = self._known.end(now)
        moments = {
            last: moments_of([] if isinstance(one, RefusedError) else one, last, now, known)
            for last, one in zip(histories, kept, strict=True)
        }
        refused = [*_refused([found]), *self._known.refused]
        return Snapshot(now, total, known, moments, refused, _refused(kept))

    async def _ask(
        self, histories: Sequence[str], ids: Sequence[str]
    ) -> tuple[float, int, Any, Sequence[Any], Sequence[Any]]:
        """Return the time, the total, the names, the histories and the records of one moment."""
        commands = [
            packed("TIME"),
            packed("GET", KEY),
            packed("ZREVRANGE", NAMES, 0, MAX_PROCESSES - 1, "WITHSCORES"),
            *(packed("HGETALL", history_key(one)) for one in histories),
            *[command async for command in in_turns(map(command_for, ids))],
        ]
        before = time.monotonic()
        now, total, found, *replies = await self._link.ask_at_once(commands)
        for reply in (now, total):
            if isinstance(reply, RefusedError):
                raise reply
        self._known.set_clock(seconds(now), before, time.monotonic())
        kept, records = replies[: len(histories)], replies[len(histories) :]
        return seconds(now), int(total or 0), found, kept, records


def _scores(found: Sequence[bytes]) -> Iterator[tuple[str, float]]:
    """Yield each id, and the time beside it."""
    for id, score in zip(*[iter(found)] * 2, strict=True):
        yield id.decode(errors="replace"), float(score)


def _refused(replies: Iterable[Any]) -> list[str]:
    """Return the refusals among replies, each once."""
    return [*dict.fromkeys(str(one) for one in replies if isinstance(one, RefusedError))]


def moments_of(
    kept: Sequence[bytes], last: str, now: float, records: Iterable[Record]
) -> list[Moment]:
    """Return the steps of a history in which visits were shown, the oldest first.

    :arg kept: the fields and values of the history.
    :arg last: the name of the history.
    :arg now: Redis's time, in seconds since 1970.
    :arg records: their visits since the last sign belong to the step of that sign, because a
        process gives a sign every second.
    """
    step, steps = HISTORIES[last]
    newest = int(now // step) * step
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for one in filter(
        None, (_STEP.fullmatch(text.decode("utf-8", "replace")) for text in kept[1::2])
    ):
        for word in one[2].split()[:MAX_WORDS]:
            version, _, visits = word.rpartition("=")
            found[int(one[1])][decoded(version)] += int(visits)
    for record in records:
        if record.sign and record.visits > record.sign.shown:
            start = int(min(record.sign.time, now) // step) * step
            found[start][record.version] += record.visits - record.sign.shown
    begins = newest - step * steps
    return [(start, found[start]) for start in sorted(found) if begins < start <= newest]
