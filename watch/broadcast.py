"""What those who watch the live page are told: once a second, as long as there are any.

Events are what the HTML standard calls a server-sent event stream
(https://html.spec.whatwg.org/multipage/server-sent-events.html). One snapshot a second, and
one encoding, serves all who watch. Who comes is told the history of the next one, and then what
was counted from each snapshot to the next, so all see the same, whichever replica they ask. Times
are those of Redis's clock.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from tornado.escape import json_encode

from replicas import Reader, RefusedError, Snapshot
from watch import events

#: Seconds between two snapshots.
EVERY = 1.0

#: Milliseconds after which a page comes back, at least and at most: not all of them at once.
RETRY = (1000, 2000)

#: Watchers that are written to in one turn of the loop; then pages get theirs. 1,000 take 10 ms.
WATCHERS_PER_TURN = 50

#: Texts of what Redis refuses that are logged.
MAX_SAID = 100

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

    def __init__(self, reader: Reader) -> None:
        self.watchers: dict[Watcher, str] = {}
        """Those who watch now, and which history each wants."""
        self._reader = reader
        self._polling: asyncio.Task[None] | None = None
        self._closed = False
        self._newcomers: set[Watcher] = set()  # those who wait for their history
        self._event = b""  # the last one
        self._marks = b""  # the last ones that were told
        self._counted = events.Counted()
        self._refused_histories: Sequence[str] = ()
        self._said: set[str] = set()  # what Redis refuses, as has been logged
        self._ahead = time.time() - time.monotonic()  # Redis's clock, of the monotonic one

    def add(self, watcher: Watcher, last: str) -> None:
        """Tell somebody, from the next look on.

        :arg last: which of the `replicas.HISTORIES` comes first.
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
            self._counted = events.Counted()
            if reading is not None:
                reading.cancel()
                await asyncio.wait([reading])
            self._reader.close()

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
        refused = [*self._refused_histories, *snapshot.refused]
        self._say(refused)
        await asyncio.sleep(0)  # pages get their turn
        self._event = await events.figures(snapshot, counted, refused)
        told, self._marks = self._marks, await events.marks(snapshot)
        whole = {
            last: events.history(snapshot, last) + self._marks + self._event
            for last in snapshot.moments
        }
        # Who came while the snapshot was read, and wants another history, waits for the next one.
        firsts = {one: whole.get(self.watchers[one], b"") for one in self._newcomers}
        self._newcomers = {one for one, chunk in firsts.items() if not chunk}
        if is_told_anew:
            self._newcomers |= self.watchers.keys() - firsts.keys()
        news = self._event if told == self._marks else self._marks + self._event
        await self._send(news, firsts)

    def _event_without_snapshot(self, error: Exception) -> bytes:
        is_refused = isinstance(error, RefusedError)
        reason = self._reader.reason(error)
        if is_refused:
            self._say([reason])
        else:  # the counter's log says so
            log.debug("no snapshot: %s", reason)
        now = round(time.monotonic() + self._ahead, 3)
        state = "refused" if is_refused else "down"
        return events.event(None, json_encode({"time": now, "redis": state, "reason": reason}))

    def _say(self, refused: Sequence[str]) -> None:
        """Log, once, what the live page misses as Redis does not let it be read."""
        for one in refused:
            if one not in self._said and len(self._said) < MAX_SAID:
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
