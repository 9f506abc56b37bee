"""What those who watch the live page are told: once a second, as long as there are any.

Events are what the HTML standard calls a server-sent event stream
(https://html.spec.whatwg.org/multipage/server-sent-events.html). One snapshot a second, and
one encoding, serves all who watch. Who comes is told the history of the next one, and then what
was counted from each snapshot to the next, so all see the same, whichever replica they ask. Times
are those of Redis's clock.
"""

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from tornado.escape import json_encode

from counter.marks import marks_of, versions_of
from counter.reading import RefusedError, Snapshot, StatisticsReader
from counter.statistics import HISTORIES

#: Seconds between two snapshots.
EVERY = 1.0

#: Milliseconds after which a page comes back, at least and at most: not all of them at once.
RETRY = (1000, 2000)

#: Watchers that are written to in one turn of the loop; then pages get theirs. 1,000 take 10 ms.
WATCHERS_PER_TURN = 50

#: Seconds between two snapshots past which what was counted is told by the history, to everybody.
MAX_GAP = 3.0

HEARTBEAT = b":\n\n"

log = logging.getLogger("friendlyhello")


class Watcher(Protocol):
    """Somebody who watches."""

    def send(self, chunk: bytes) -> bool:
        """Write some of the stream, and tell so, unless earlier writes have not been read yet."""

    def end(self) -> None:
        """End the stream."""


class Broadcast:
    """Sends those who watch what each snapshot shows.

    :arg reader: reads snapshots; it is closed when nobody watches.
    """

    def __init__(self, reader: StatisticsReader) -> None:
        self.watchers: dict[Watcher, str] = {}
        """Those who watch now, and which history each wants."""
        self._reader = reader
        self._polling: asyncio.Task[None] | None = None
        self._closed = False
        self._newcomers: set[Watcher] = set()  # those who wait for their history
        self._event = b""  # the last one
        self._marks = b""  # the last ones that were told
        self._counted = _Counted()
        self._refused_histories: Sequence[str] = ()
        self._said: set[str] = set()  # what Redis refuses, as has been logged
        self._ahead = time.time() - time.monotonic()  # Redis's clock, of the monotonic one

    def add(self, watcher: Watcher, last: str) -> None:
        """Tell somebody, from the next look on.

        :arg last: which of the `counter.HISTORIES` comes first.
        """
        watcher.send(b"retry: %d\n\n" % random.randint(*RETRY))
        if self._closed:
            watcher.end()
            return
        self.watchers[watcher] = last
        self._newcomers.add(watcher)
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())

    def remove(self, watcher: Watcher) -> None:
        """Tell somebody no more."""
        self.watchers.pop(watcher, None)
        self._newcomers.discard(watcher)

    async def close(self) -> None:
        """End every stream, at once, and the connection to Redis."""
        self._closed = True
        for watcher in self.watchers:
            watcher.end()
        self.watchers.clear()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])

    async def _poll(self) -> None:
        """Read a snapshot a second, and send it, until nobody watches any more."""
        loop = asyncio.get_running_loop()
        tick = loop.time()
        reading: asyncio.Task[Snapshot] | None = None
        try:
            while self.watchers:
                if reading is None:
                    who = self.watchers if self._refused_histories else self._newcomers
                    wanted = {self.watchers[one] for one in who}
                    reading = asyncio.create_task(self._reader.read(wanted))
                await asyncio.wait([reading], timeout=EVERY)
                if not reading.done():
                    await self._send(HEARTBEAT)
                else:
                    done, reading = reading, None
                    await self._tell(done)
                tick = max(tick + EVERY, loop.time())
                await asyncio.sleep(tick - loop.time())
        finally:
            self._polling = None
            self._counted = _Counted()
            if reading is not None:
                reading.cancel()
                await asyncio.wait([reading])
            await self._reader.close()

    async def _tell(self, reading: asyncio.Task[Snapshot]) -> None:
        """Send what a snapshot shows, or that there is none."""
        try:
            snapshot = reading.result()
        except Exception as error:
            self._event = self._event_without_snapshot(error)
            await self._send(self._event)
            return
        self._ahead = snapshot.time - time.monotonic()
        counted = self._counted.since_last(snapshot)
        is_told_anew = counted is None
        if snapshot.moments:
            is_told_anew |= len(snapshot.refused_histories) < len(self._refused_histories)
            self._refused_histories = snapshot.refused_histories
        self._event = self._event_of(snapshot, counted)
        told, self._marks = self._marks, _marks(snapshot)
        whole = {
            last: _history(snapshot, last) + self._marks + self._event for last in snapshot.moments
        }
        # Who came while the snapshot was read, and wants another history, waits for the next one.
        firsts = {one: whole.get(self.watchers[one], b"") for one in self._newcomers}
        self._newcomers = {one for one, chunk in firsts.items() if not chunk}
        if is_told_anew:
            self._newcomers |= self.watchers.keys() - firsts.keys()
        news = self._event if told == self._marks else self._marks + self._event
        await self._send(news, firsts)

    def _event_of(self, snapshot: Snapshot, counted: Mapping[str, int] | None) -> bytes:
        replicas = [
            {"hostname": one.hostname, "visits": one.visits, "seen": round(one.seen, 1)}
            | _without_empty(version=one.version, labels=one.labels, faults=one.faults)
            | _without_empty(state=one.state)
            for one in snapshot.replicas
        ]
        refused = [*self._refused_histories, *snapshot.refused]
        event = {
            "time": round(snapshot.time, 3),
            "redis": "up",
            "total": snapshot.total,
            **({} if counted is None else {"counted": counted}),
            "replicas": replicas,
            **_without_empty(refused=refused),
        }
        self._say(refused)
        return _event(None, event, id=round(snapshot.time * 1000))

    def _event_without_snapshot(self, error: Exception) -> bytes:
        is_refused = isinstance(error, RefusedError)
        reason = self._reader.reason(error)
        if is_refused:
            self._say([reason])
        else:  # the counter's log says so
            log.debug("no snapshot: %s", reason)
        now = round(time.monotonic() + self._ahead, 3)
        state = "refused" if is_refused else "down"
        return _event(None, {"time": now, "redis": state, "reason": reason})

    def _say(self, refused: Sequence[str]) -> None:
        """Log, once, what the live page misses as Redis does not let it be read."""
        for one in refused:
            if one not in self._said:
                self._said.add(one)
                log.warning("not all can be shown on the live page, as Redis refuses %s", one)

    async def _send(self, event: bytes, firsts: Mapping[Watcher, bytes] | None = None) -> None:
        """Send an event to all; who has not read what came before gets the history again.

        :arg firsts: what some get in its place.
        """
        for number, watcher in enumerate(list(self.watchers), 1):
            chunk = (firsts or {}).get(watcher, event)
            if chunk and watcher in self.watchers and not watcher.send(chunk):
                self._newcomers.add(watcher)
            if number % WATCHERS_PER_TURN == 0:
                await asyncio.sleep(0)


class _Counted:
    """Knows what was counted from one snapshot to the next."""

    def __init__(self) -> None:
        self._time = -math.inf
        self._visits: dict[str, int] = {}  # the most that each process has shown
        self._refused: Sequence[str] = ()

    def since_last(self, snapshot: Snapshot) -> Mapping[str, int] | None:
        """Return the visits by version; None when the last one was long ago, or showed less."""
        counted: Counter[str] = Counter()
        for one in snapshot.processes:
            before = self._visits.get(one.id, 0)
            if one.visits > before:  # less, when its last ones were shown to nobody
                self._visits[one.id] = one.visits
                counted[one.version] += one.visits - before
        is_next = 0 <= snapshot.time - self._time <= MAX_GAP and snapshot.refused == self._refused
        self._time, self._refused = snapshot.time, snapshot.refused
        return counted if is_next else None


def _marks(snapshot: Snapshot) -> bytes:
    marks = [
        {"time": round(one.time, 3)}
        | _without_empty(until=round(one.until, 3))
        | {"kind": one.kind}
        | _without_empty(hostname=one.hostname, version=one.version, reason=one.reason)
        for one in marks_of(snapshot.processes, snapshot.time)
    ]
    return _event("marks", {"versions": versions_of(snapshot.processes), "marks": marks})


def _history(snapshot: Snapshot, last: str) -> bytes:
    now = round(snapshot.time, 3)
    step, moments = HISTORIES[last].step, snapshot.moments[last]
    return _event("history", {"last": last, "step": step, "time": now, "moments": moments})


def _without_empty(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value}


def _event(kind: str | None, data: object, id: int | None = None) -> bytes:
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {id}"] if id is not None else []
    return "\n".join([*lines, f"data: {json_encode(data)}", "", ""]).encode()
