"""The records that a reader knows: which ones it must read again, and when each was seen.

Beside the name of each process stands the time of its last sign. The record of the process changes
up to a second after this time, and not later. So a reader need not read a record whose time has
stood still for a while.
"""

import heapq
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from counter import process_key
from replicas.forms import OPEN, Form
from replicas.keys import DAY
from replicas.link import RefusedError
from replicas.records import FIELDS, Record, cut, record_of
from replicas.turns import in_turns

#: Each look reads the records whose last sign is not older than this many seconds.
FRESH = 3.0

#: How many of the other records each look reads, in turn. So a record that somebody has deleted is
#: shown for a minute at most.
AGAIN = 20

#: If Redis's clock moves by this many seconds too much or too little from one look to the next,
#: somebody has set it.
CLOCK_SET = 1.0

#: How Redis says that a key has another type than the command needs.
WRONG_TYPE = "WRONGTYPE"

#: How many of the records that cannot be read the log names.
MAX_NAMED = 100

_READS = Form("HMGET", OPEN, *FIELDS)

_MARKED = FIELDS.index("marked")

log = logging.getLogger("friendlyhello.visits")


def command_for(id: str) -> bytes:
    """Return the command that reads the record of a process."""
    return _READS.filled(process_key(id))


@dataclass
class _Known:
    """What a reader knows of one process. Times are seconds since 1970, by Redis's clock.

    :arg score: the time beside its name, as it stands in Redis.
    :arg seen_at: the same time, but within the last day and not in the future.
    :arg earliest: the time of the last look before this sign.
    :arg record: None when there is no record that can be read.
    :arg moved: seconds by which Redis's clock was set since this sign.
    :arg read_in: the number of the look that last read the record.
    :arg refused: the command that Redis refused in that look, and why; else empty.
    """

    score: float
    seen_at: float
    earliest: float
    record: Record | None = None
    moved: float = 0.0
    read_in: int = 0
    refused: str = ""


class Known:
    """The records of the processes whose names stand in Redis."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._looks = 0
        self._seen_at = 0.0  # the time of the last look, by Redis's clock
        self._ahead: float | None = None  # Redis's clock less the monotonic clock
        self._named: set[str] = set()

    def forget(self) -> None:
        """Forget all records."""
        self._known.clear()

    def begin(self) -> Sequence[str]:
        """Begin a look. Return the ids whose records it must read."""
        self._looks += 1
        fresh = self._seen_at - FRESH
        others = [(one.read_in, id) for id, one in self._known.items() if one.seen_at <= fresh]
        read = [id for id, one in self._known.items() if one.seen_at > fresh]
        return [*read, *(id for _, id in heapq.nsmallest(AGAIN, others))]

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def set_clock(self, now: float, before: float, after: float) -> None:
        """Compare Redis's clock with the monotonic clock. If Redis's clock was set, move all times.

        So if one record was seen before another, it stays before the other.

        :arg now: Redis's time, in seconds since 1970.
        :arg before: the monotonic clock before the question to Redis, in seconds.
        :arg after: the monotonic clock after the answer.
        """
        held = self._ahead if self._ahead is not None else now - after
        self._ahead = max(now - after, min(held, now - before))
        seconds = self._ahead - held
        if abs(seconds) <= CLOCK_SET:  # one clock goes a little faster
            return
        self._seen_at += seconds
        for one in self._known.values():
            one.seen_at += seconds
            one.earliest += seconds
            one.moved += seconds
            one.record = one.record and one.record.moved(seconds)

    async def take_names(self, scores: Iterable[tuple[str, float]], now: float) -> list[str]:
        """Take the names that stand in Redis. Return the ids whose records have changed.

        :arg scores: each id, and the time beside it.
        :arg now: when they were read, by Redis's clock.
        """
        before, self._known, changed = self._known, {}, []
        async for id, score in in_turns(scores):
            one = before.get(id)
            if one is None or one.score != score:
                seen_at = max(now - DAY, min(score, now))
                record = one.record if one else None
                one = _Known(score, seen_at, self._seen_at if one else seen_at, record)
                changed.append(id)
            self._known[id] = one
        return changed

    def take(self, id: str, kept: Sequence[bytes | None] | RefusedError) -> None:
        """Take a record.

        :arg id: of its process.
        :arg kept: the values of the `FIELDS`, or how Redis refused them.
        """
        one = self._known.get(id)
        if one is None:  # Redis has removed its name
            return
        one.read_in, one.record, one.refused = self._looks, None, ""
        try:
            if not isinstance(kept, RefusedError):
                if not kept[_MARKED]:  # another clock, perhaps a late one, gave the time
                    one.seen_at = max(one.seen_at, one.earliest)
                found = record_of(id, one.seen_at - one.moved, kept)
                one.record = found and found.moved(one.moved)
            elif WRONG_TYPE in str(kept):
                raise ValueError(str(kept))
            else:
                one.refused = str(kept)
        except ValueError as error:
            if id not in self._named and len(self._named) < MAX_NAMED:
                self._named.add(id)
                log.warning("%s is left out of the live page: %s", cut(process_key(id)), error)

    @property
    def refused(self) -> Iterable[str]:
        """The commands that Redis refused, and why; each once."""
        return dict.fromkeys(one.refused for one in self._known.values() if one.refused)

    def end(self, now: float) -> Sequence[Record]:
        """End the look. Return the records, the most recently seen first.

        :arg now: the time of the look, by Redis's clock.
        """
        self._seen_at = now
        return [one.record for one in self._known.values() if one.record is not None]
