"""The replicas that processes belong to, and what is the matter with each."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from replicas.records import Record

#: Seconds after the last sign of a process at which, if others give some, it is taken for ended.
SILENT_AFTER = 5.0

#: All of a replica's processes have said that they are to stop, or have stopped; or none was seen
#: for `SILENT_AFTER`, while others were.
State = Literal["", "draining", "gone", "silent"]


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


def replicas_of(records: Sequence[Record], now: float) -> Iterator[Replica]:
    """Yield the replicas that the processes belong to, by name.

    The process seen last says which version its replica runs, its labels and faults.

    :arg now: seconds since 1970, by Redis's clock.
    """
    latest = latest_of(records, now)
    for hostname, those in sorted(by_hostname(records).items()):
        first = max(those, key=lambda one: one.seen_at)
        yield Replica(
            hostname,
            sum(one.visits for one in those),
            max(0.0, now - first.seen_at),
            first.version,
            first.labels,
            first.faults,
            state_of(those, latest),
        )


def by_hostname(records: Iterable[Record]) -> Mapping[str, Sequence[Record]]:
    """Return the processes of each replica, in their order."""
    replicas: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        replicas[one.hostname].append(one)
    return replicas


def latest_of(records: Iterable[Record], now: float) -> float:
    """Return when one of them was last seen that is not to stop; now when all are.

    One that says goodbye is seen, and makes nobody silent who had no visits for a while.
    """
    return max((one.seen_at for one in records if not one.state), default=now)


def has_gone(records: Sequence[Record]) -> bool:
    """Tell whether all of a replica's processes have said goodbye."""
    return _said(records) == {"gone"}


def state_of(records: Sequence[Record], latest: float) -> State:
    """Return what is the matter with a replica.

    :arg records: those of its own processes.
    :arg latest: see `latest_of`, of all replicas.
    """
    said = _said(records)
    if said == {"gone"}:
        return "gone"
    if max(one.seen_at for one in records) < latest - SILENT_AFTER:
        return "silent"
    return "" if "" in said else "draining"


def _said(records: Sequence[Record]) -> set[str]:
    """Return what they say; those seen long before the last one have ended without a word."""
    seen_at = max(one.seen_at for one in records)
    return {one.state for one in records if one.seen_at >= seen_at - SILENT_AFTER}
