"""What has happened to the replicas. The records of their processes tell it.

No marks are stored: each look at the records finds the same marks again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from replicas.keys import DAY
from replicas.records import Outage, Record
from replicas.states import by_hostname, has_gone, latest_of, state_of
from replicas.turns import in_turns

#: Within this many seconds, two events count as one: two workers of a replica that start, or two
#: processes that lose Redis.
TOGETHER = 1.0

#: The most marks to return: the newest ones.
MAX_MARKS = 200

#: A replica came, said goodbye, or fell silent; Redis was away; a version was seen for the first
#: time.
Kind = Literal["came", "gone", "silent", "away", "version"]


@dataclass(frozen=True)
class Mark:
    """Something that happened.

    :arg time: seconds since 1970, by Redis's clock.
    :arg kind: what happened.
    :arg hostname: the replica to which it happened.
    :arg version: the label of the version that came, if it has one.
    :arg until: when Redis was back.
    :arg reason: why Redis was away.
    """

    time: float
    kind: Kind
    hostname: str = ""
    version: str = ""
    until: float = 0.0
    reason: str = ""


def versions_of(records: Iterable[Record]) -> list[str]:
    """Return the versions, in the order in which they first came. "" means no version."""
    return [version for version, _ in _first_seen(records)]


async def marks_of(records: Sequence[Record], now: float) -> list[Mark]:
    """Return the newest marks of the last day, the oldest first.

    If somebody set the clock back, marks may lie in the future. This leaves them out.

    :arg now: seconds since 1970, by Redis's clock.
    """
    found = [Mark(when, "version", version=one) for one, when in _first_seen(records) if one]
    found += [
        Mark(one.start, "away", until=one.end, reason=one.reason) for one in await _away(records)
    ]
    latest = latest_of(records, now)
    async for hostname, those in in_turns(by_hostname(records).items()):
        found += _of_replica(hostname, those, latest)
    recent = [one for one in found if now - DAY < one.time <= now + TOGETHER]
    return sorted(recent, key=lambda one: (one.time, one.kind, one.hostname))[-MAX_MARKS:]


def _first_seen(records: Iterable[Record]) -> list[tuple[str, float]]:
    first: dict[str, float] = {}
    for one in records:
        first[one.version] = min(one.started, first.get(one.version, one.started))
    return sorted(first.items(), key=lambda one: (one[1], one[0]))


async def _away(records: Iterable[Record]) -> list[Outage]:
    """Return the outages of all processes. Outages that overlap become one."""
    begun: dict[int, Outage] = {}  # most outages begin together: they become one
    async for record in in_turns(records):
        for one in record.away:
            other = begun.setdefault(int(one.start // TOGETHER), one)
            if other is not one:
                first = min(one, other)
                begun[int(one.start // TOGETHER)] = first._replace(end=max(one.end, other.end))
    outages: list[Outage] = []
    for one in sorted(begun.values()):
        if outages and one.start <= outages[-1].end + TOGETHER:
            outages[-1] = outages[-1]._replace(end=max(outages[-1].end, one.end))
        else:
            outages.append(one)
    return outages


def _of_replica(hostname: str, records: Sequence[Record], latest: float) -> Iterator[Mark]:
    """Yield the marks of one replica: when it came, and when it went."""
    for life in _lives(records):
        if starts := [(one.started, one.version) for one in life if one.started]:
            started, version = min(starts)
            yield Mark(started, "came", hostname, version)
        state = state_of(life, latest)
        if state == "gone" or state == "silent":
            yield Mark(max(one.seen_at for one in life), state, hostname)


def _lives(records: Sequence[Record]) -> list[list[Record]]:
    """Return groups of processes that ran together: one group for each time the replica came."""
    lives: list[list[Record]] = []
    for one in sorted(records, key=lambda one: one.started):
        if not lives or _comes_after(one, lives[-1]):
            lives.append([])
        lives[-1].append(one)
    return lives


def _comes_after(record: Record, life: Sequence[Record]) -> bool:
    ended = max(one.seen_at for one in life)
    return record.started > (ended if has_gone(life) else ended + TOGETHER)
