"""The text of the live page's events, made in pieces, so that no visit waits long for it."""

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tornado.escape import json_encode

from replicas import (
    HISTORIES,
    MAX_PROCESSES,
    Mark,
    Replica,
    Snapshot,
    in_turns,
    marks_of,
    replicas_of,
    versions_of,
)

#: Seconds between two snapshots after which everybody gets the history again, instead of what was
#: counted in between.
MAX_GAP = 3.0

#: How many processes `Counted` remembers: twice as many as a snapshot has.
MAX_KNOWN = 2 * MAX_PROCESSES


class Counted:
    """Knows what was counted from one snapshot to the next."""

    def __init__(self) -> None:
        self._time = -math.inf
        self._visits: dict[str, int] = {}  # the most visits of each process, the oldest first
        self._refused: Sequence[str] = ()

    def since_last(self, snapshot: Snapshot) -> Mapping[str, int] | None:
        """Return the visits since the last snapshot, by version.

        :return: None when the last snapshot is too old, or lacks other parts than this one.
        """
        counted: Counter[str] = Counter()
        for one in snapshot.records:
            before = self._visits.pop(one.id, 0)
            if one.visits > before:  # a process's visits fall when it gives numbers back
                counted[one.version] += one.visits - before
            self._visits[one.id] = max(one.visits, before)
        # A process may be missing for a while, so remember it. Forget the oldest ones.
        for id in list(itertools.islice(self._visits, max(0, len(self._visits) - MAX_KNOWN))):
            del self._visits[id]
        is_next = 0 <= snapshot.time - self._time <= MAX_GAP and snapshot.refused == self._refused
        self._time, self._refused = snapshot.time, snapshot.refused
        return counted if is_next else None


def _replica(one: Replica) -> str:
    told = {"hostname": one.hostname, "visits": one.visits, "seen": round(one.seen, 1)}
    more = _without_empty(
        version=one.version, labels=one.labels, faults=one.faults, state=one.state
    )
    return json_encode(told | more)


async def figures(
    snapshot: Snapshot, counted: Mapping[str, int] | None, refused: Sequence[str]
) -> bytes:
    """Return the event with a snapshot's figures.

    :arg counted: see `Counted.since_last`.
    :arg refused: what Redis refused to read, and why.
    """
    replicas = replicas_of(snapshot.records, snapshot.time)
    told = {
        "time": json_encode(round(snapshot.time, 3)),
        "redis": '"up"',
        "total": json_encode(snapshot.total),
        "counted": "" if counted is None else json_encode(counted),
        "replicas": await _list(map(_replica, replicas)),
        "refused": json_encode(refused) if refused else "",
    }
    return event(None, _object(told), id=round(snapshot.time * 1000))


async def marks(snapshot: Snapshot) -> bytes:
    """Return the event with the marks: what has happened to the replicas."""
    await asyncio.sleep(0)  # after the figures
    found = await marks_of(snapshot.records, snapshot.time)
    versions = json_encode(versions_of(snapshot.records))
    return event("marks", _object({"versions": versions, "marks": await _list(map(_mark, found))}))


def history(snapshot: Snapshot, last: str) -> bytes:
    """Return the event with one of the `replicas.HISTORIES`.

    :arg last: the history's name.
    """
    now = round(snapshot.time, 3)
    step, moments = HISTORIES[last].step, snapshot.moments[last]
    told = {"last": last, "step": step, "time": now, "moments": moments}
    return event("history", json_encode(told))


def event(kind: str | None, data: str, id: int | None = None) -> bytes:
    """Return an event as the stream has it.

    :arg kind: the event's type; None for a plain message.
    :arg data: JSON.
    :arg id: the event's id; None for none.
    """
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {id}"] if id is not None else []
    return "\n".join([*lines, f"data: {data}", "", ""]).encode()


def _mark(one: Mark) -> str:
    return json_encode(
        {"time": round(one.time, 3)}
        | _without_empty(until=round(one.until, 3))
        | {"kind": one.kind}
        | _without_empty(hostname=one.hostname, version=one.version, reason=one.reason)
    )


def _without_empty(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value}


async def _list(items: Iterable[str]) -> str:
    return f"[{', '.join([one async for one in in_turns(items)])}]"


def _object(fields: Mapping[str, str]) -> str:
    """Return a JSON object.

    :arg fields: the JSON of each field; the object leaves out fields whose text is empty.
    """
    told = (f'"{name}": {value}' for name, value in fields.items() if value)
    return f"{{{', '.join(told)}}}"
