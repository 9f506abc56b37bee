"""The events of the live page's stream, as text, made piece by piece so that no page waits long."""

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

#: Seconds between two snapshots past which what was counted is told by the history, to everybody.
MAX_GAP = 3.0

#: Processes of which it is kept what they have shown: twice as many as a look has.
MAX_KNOWN = 2 * MAX_PROCESSES


class Counted:
    """Knows what was counted from one snapshot to the next."""

    def __init__(self) -> None:
        self._time = -math.inf
        self._visits: dict[str, int] = {}  # the most that each process has shown, the last ones
        self._refused: Sequence[str] = ()

    def since_last(self, snapshot: Snapshot) -> Mapping[str, int] | None:
        """Return the visits by version; None when the last one was long ago, or showed less."""
        counted: Counter[str] = Counter()
        for one in snapshot.records:
            before = self._visits.pop(one.id, 0)
            if one.visits > before:  # less, when its last ones were shown to nobody
                counted[one.version] += one.visits - before
            self._visits[one.id] = max(one.visits, before)
        # Some are not to be seen for a while; those of former days are not kept.
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
    """Return the event that tells what a snapshot shows.

    :arg counted: see `Counted.since_last`.
    :arg refused: what Redis does not let be read, and why.
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
    """Return the event that tells what has happened."""
    await asyncio.sleep(0)  # after the figures
    found = await marks_of(snapshot.records, snapshot.time)
    versions = json_encode(versions_of(snapshot.records))
    return event("marks", _object({"versions": versions, "marks": await _list(map(_mark, found))}))


def history(snapshot: Snapshot, last: str) -> bytes:
    """Return the event that tells one of the `replicas.HISTORIES`."""
    now = round(snapshot.time, 3)
    step, moments = HISTORIES[last].step, snapshot.moments[last]
    told = {"last": last, "step": step, "time": now, "moments": moments}
    return event("history", json_encode(told))


def event(kind: str | None, data: str, id: int | None = None) -> bytes:
    """Return an event as it is sent.

    :arg kind: what its type is; None for a message.
    :arg data: JSON.
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
    """Return an object of fields that are JSON; those that are empty are left out."""
    told = (f'"{name}": {value}' for name, value in fields.items() if value)
    return f"{{{', '.join(told)}}}"
