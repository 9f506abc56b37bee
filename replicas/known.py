"""The records that a reader knows: which it has to read again, and when each was seen.

A record changes with the visits of its process, and at most a second after the time that stands
beside its name. So those whose time has stood still for a while need not be read.
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

#: Seconds after its last sign in which a record is read with each look.
FRESH = 3.0

#: Of the other records, how many are read again with each look, in turn. So what somebody has
#: deleted is shown for a minute at most.
AGAIN = 20

#: Seconds by which Redis's clock may go wrong from one look to the next before it was set.
CLOCK_SET = 1.0

#: How Redis says that a key holds something else.
WRONG_TYPE = "WRONGTYPE"

#: Records that cannot be read, and are named in the log.
MAX_NAMED = 100

_READS = Form("HMGET", OPEN, *FIELDS)

_MARKED = FIELDS.index("marked")

log = logging.getLogger("friendlyhello.visits")


def command_for(id: str) -> bytes:
    """Return what reads a record."""
    return _READS.filled(process_key(id))


@dataclass
class _Known:
    """What is known of one process.

    :arg score: the time beside its name, as it stood there.
    :arg seen_at: the same where that may be.
    :arg earliest: the time of the last look that has not seen it yet.
    :arg record: None when there is none that can be read.
    :arg moved: seconds by which Redis's clock was set since.
    :arg read_in: the look that has read the record.
    :arg refused: what Redis did not let be read then, and why.
    """

    score: float
    seen_at: float
    earliest: float
    record: Record | None = None
    moved: float = 0.0
    read_in: int = 0
    refused: str = ""


class Known:
    """The records that were read, of the processes that have a name."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._looks = 0
        self._seen_at = 0.0  # the time of the last look, by Redis's clock
        self._ahead: float | None = None  # Redis's clock, of the monotonic one
        self._named: set[str] = set()

    def forget(self) -> None:
        """Forget all records."""
        self._known.clear()

    def begin(self) -> Sequence[str]:
        """Begin a look; return the ids whose records it has to read."""
        self._looks += 1
        fresh = self._seen_at - FRESH
        others = [(one.read_in, id) for id, one in self._known.items() if one.seen_at <= fresh]
        read = [id for id, one in self._known.items() if one.seen_at > fresh]
        return [*read, *(id for _, id in heapq.nsmallest(AGAIN, others))]

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def set_clock(self, now: float, before: float, after: float) -> None:
        """Take Redis's time; where its clock was set, what is known moves along.

        So what was seen longer ago than something else stays so.

        :arg before: the monotonic clock when Redis was asked.
        :arg after: the same when it had answered.
        """
        held = self._ahead if self._ahead is not None else now - after
        self._ahead = max(now - after, min(held, now - before))
        seconds = self._ahead - held
        if abs(seconds) <= CLOCK_SET:  # one of the two goes a little faster
            return
        self._seen_at += seconds
        for one in self._known.values():
            one.seen_at += seconds
            one.earliest += seconds
            one.moved += seconds
            one.record = one.record and one.record.moved(seconds)

    async def take_names(self, scores: Iterable[tuple[str, float]], now: float) -> list[str]:
        """Take the names that there are; return those whose records have changed.

        :arg scores: each with the time beside it.
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
        """Take what was read of a record.

        :arg kept: the values of the `FIELDS`, or why there are none.
        """
        one = self._known.get(id)
        if one is None:  # its name has gone meanwhile
            return
        one.read_in, one.record, one.refused = self._looks, None, ""
        try:
            if not isinstance(kept, RefusedError):
                if not kept[_MARKED]:  # by another clock than Redis's, which may be late
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
        """What Redis does not let be read, and why, each once."""
        return dict.fromkeys(one.refused for one in self._known.values() if one.refused)

    def end(self, now: float) -> Sequence[Record]:
        """End the look; return the records, the one seen last first.

        :arg now: when it was, by Redis's clock.
        """
        self._seen_at = now
        return [one.record for one in self._known.values() if one.record is not None]
