"""The replicas that processes belong to, and the state of each."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from replicas.records import Record

#: A process that gives no sign for this many seconds, while others do, counts as ended.
SILENT_AFTER = 5.0

#: "draining": all processes of a replica have said that they will stop. "gone": all have said that
#: they have stopped. "silent": none was seen for `SILENT_AFTER`, while other replicas were.
State = Literal["", "draining", "gone", "silent"]


@dataclass(frozen=True)
class Replica:
    """One replica.

    :arg hostname: its name.
    :arg visits: how many its processes of the last day have shown.
    :arg seen: seconds since one of its processes last counted or told something.
    :arg version: the label of the version that it runs; empty when it has none.
    :arg labels: its labels.
    :arg faults: the kinds of faults that it has now.
    :arg state: its state; empty while it runs.
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

    A replica has the version, labels and faults of its most recently seen process.

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
    """Return the processes of each replica, in the order of the records."""
    replicas: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        replicas[one.hostname].append(one)
    return replicas


def latest_of(records: Iterable[Record], now: float) -> float:
    """Return when a process that is not stopping was last seen; if all are stopping, now.

    A process that says goodbye does not count. Otherwise, at its goodbye, replicas that had no
    visits for a while would seem silent.
    """
    return max((one.seen_at for one in records if not one.state), default=now)


def has_gone(records: Sequence[Record]) -> bool:
    """Tell whether all of a replica's processes have said goodbye."""
    return _said(records) == {"gone"}


def state_of(records: Sequence[Record], latest: float) -> State:
    """Return the state of a replica.

    :arg records: of its own processes.
    :arg latest: the result of `latest_of` for all replicas.
    """
    said = _said(records)
    if said == {"gone"}:
        return "gone"
    if max(one.seen_at for one in records) < latest - SILENT_AFTER:
        return "silent"
    return "" if "" in said else "draining"


def _said(records: Sequence[Record]) -> set[str]:
    """Return the states that processes have told.

    This leaves out processes that were seen long before the last one: they ended without a word.
    """
    seen_at = max(one.seen_at for one in records)
    return {one.state for one in records if one.seen_at >= seen_at - SILENT_AFTER}
