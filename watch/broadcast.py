"""What those who watch the live page are told: once a second, as long as there are any.

Events are what the HTML standard calls a server-sent event stream
(https://html.spec.whatwg.org/multipage/server-sent-events.html). One snapshot a second, and
one encoding, serves all who watch. Times are those of Redis's clock, so that a page may go on
with another replica where it left one.
"""

import asyncio
import logging
import random
import time
from collections import deque
from typing import Protocol

from tornado.escape import json_encode

from counter import HISTORY, RefusedError, Snapshot, StatisticsReader

#: Seconds between two snapshots.
EVERY = 1.0

#: Milliseconds after which a page comes back, at least and at most: not all of them at once.
RETRY = (1000, 2000)

#: Watchers that are written to in one turn of the loop; then pages get theirs. 1,000 take 10 ms.
WATCHERS_PER_TURN = 50

HEARTBEAT = b":\n\n"

log = logging.getLogger("friendlyhello")


class Watcher(Protocol):
    """Somebody who watches."""

    def send(self, chunk: bytes) -> None:
        """Write some of the stream, unless what was written before has not been read yet."""

    def end(self) -> None:
        """End the stream."""


class Broadcast:
    """Sends those who watch what each snapshot shows.

    :arg reader: reads snapshots; it is closed when nobody watches.
    """

    def __init__(self, reader: StatisticsReader) -> None:
        self.watchers: set[Watcher] = set()
        """Those who watch now."""
        self._reader = reader
        self._polling: asyncio.Task[None] | None = None
        self._closed = False
        self._event = b""  # the last one
        self._history: deque[tuple[float, int]] = deque(maxlen=2 * HISTORY)  # time and total
        self._knows_history = False
        self._history_refused: list[str] = []  # why it cannot be known
        self._said: set[str] = set()  # what Redis refuses, as has been logged
        self._newcomers: dict[Watcher, float] = {}  # those who wait for it, and since when
        self._ahead = time.time() - time.monotonic()  # Redis's clock, of the monotonic one

    def add(self, watcher: Watcher, since: float = 0) -> None:
        """Tell somebody, from now on, beginning with what others have been told already.

        :arg since: seconds since 1970; what was told until then is left out.
        """
        watcher.send(b"retry: %d\n\n" % random.randint(*RETRY))
        if self._closed:
            watcher.end()
            return
        self.watchers.add(watcher)
        if self._polling is None:
            self._event = b""
            self._polling = asyncio.create_task(self._poll())
        if self._event:
            self._send_history(watcher, since)
            watcher.send(self._event)
        else:
            self._newcomers[watcher] = since

    def remove(self, watcher: Watcher) -> None:
        """Tell somebody no more."""
        self.watchers.discard(watcher)
        self._newcomers.pop(watcher, None)

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
                reading = reading or asyncio.create_task(self._look())
                await asyncio.wait([reading], timeout=EVERY)
                if reading.done():
                    newcomers, self._newcomers = self._newcomers, {}
                    for watcher, since in newcomers.items():
                        self._send_history(watcher, since)
                    self._event = self._event_of(reading)
                    reading = None
                await self._send(HEARTBEAT if reading else self._event)
                tick = max(tick + EVERY, loop.time())
                await asyncio.sleep(tick - loop.time())
        finally:
            self._polling = None
            self._knows_history = False
            if reading is not None:
                reading.cancel()
                await asyncio.wait([reading])
            await self._reader.close()

    def _event_of(self, reading: asyncio.Task[Snapshot]) -> bytes:
        """Return the event of a snapshot, or the one that says that there is none."""
        try:
            snapshot = reading.result()
        except Exception as error:
            return self._event_without_snapshot(error)
        self._ahead = snapshot.time - time.monotonic()
        self._history.append((round(snapshot.time, 3), snapshot.total))
        replicas = [
            {"hostname": one.hostname, "visits": one.visits, "seen": round(one.seen, 1)}
            | ({"version": one.version} if one.version else {})
            | ({"labels": one.labels} if one.labels else {})
            | ({"faults": one.faults} if one.faults else {})
            for one in snapshot.replicas
        ]
        event = {
            "time": round(snapshot.time, 3),
            "redis": "up",
            "total": snapshot.total,
            "replicas": replicas,
        }
        if refused := [*self._history_refused, *snapshot.refused]:
            event["refused"] = refused
            self._say(refused)
        return _event(None, json_encode(event), id=round(snapshot.time * 1000))

    def _event_without_snapshot(self, error: Exception) -> bytes:
        is_refused = isinstance(error, RefusedError)
        reason = self._reader.reason(error)
        if is_refused:
            self._say([reason])
        else:  # the counter's log says so
            log.debug("no snapshot: %s", reason)
        now = round(time.monotonic() + self._ahead, 3)
        state = "refused" if is_refused else "down"
        return _event(None, json_encode({"time": now, "redis": state, "reason": reason}))

    def _say(self, refused: list[str]) -> None:
        """Log, once, what the live page misses as Redis does not let it be read."""
        for one in refused:
            if one not in self._said:
                self._said.add(one)
                log.warning("not all can be shown on the live page, as Redis refuses %s", one)

    async def _look(self) -> Snapshot:
        """Read a snapshot, before the first one also what was counted while nobody watched here."""
        if not self._knows_history:
            self._history_refused = []
            try:
                history = await self._reader.history()
            except RefusedError as error:  # it may be let read later
                self._history_refused = [str(error)]
            else:
                self._history.clear()
                self._history.extend(history)
                self._knows_history = True
        return await self._reader.read()

    def _send_history(self, watcher: Watcher, since: float) -> None:
        since = max(since, time.monotonic() + self._ahead - HISTORY)
        if history := [(moment, total) for moment, total in self._history if moment > since]:
            watcher.send(_event("history", json_encode({"totals": history})))

    async def _send(self, event: bytes) -> None:
        for number, watcher in enumerate(list(self.watchers), 1):
            if watcher in self.watchers:
                watcher.send(event)
            if number % WATCHERS_PER_TURN == 0:
                await asyncio.sleep(0)


def _event(kind: str | None, data: str, id: int | None = None) -> bytes:
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {id}"] if id is not None else []
    return "\n".join([*lines, f"data: {data}", "", ""]).encode()
