"""Sends events to the watchers of the live page, once a second, as long as there are watchers.

A watcher is a client that reads ``/live/events``. The events are server-sent events
(https://html.spec.whatwg.org/multipage/server-sent-events.html). The server reads one snapshot a
second from Redis, and encodes it once for all watchers. A new watcher first gets the history that
comes with the next snapshot. Each later event says how many visits came since the snapshot before.
So all watchers see the same, whichever replica they ask. All times are by Redis's clock.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from tornado.escape import json_encode

from replicas import ElsewhereError, Reader, RefusedError, Snapshot
from watch import events

#: Seconds between two snapshots.
EVERY = 1.0

#: The least and the most milliseconds until a page connects again. The server draws a random
#: number between them, so that pages do not all come back together.
RETRY = (1000, 2000)

#: Watchers that get their event in one turn of the loop; then visits have their turn. The events
#: of 1,000 watchers take 10 ms.
WATCHERS_PER_TURN = 50

#: How many different refusals by Redis the log has.
MAX_SAID = 100

HEARTBEAT = b":\n\n"

log = logging.getLogger("friendlyhello")


class Watcher(Protocol):
    """A client that reads the stream."""

    def send(self, chunk: bytes) -> bool:
        """Write a part of the stream, unless the client has not read the earlier parts.

        :return: whether the part was written.
        """

    def end(self) -> None:
        """End the stream."""


class Broadcast:
    """Sends the events of each snapshot to all watchers.

    :arg reader: reads snapshots. The broadcast closes it when there are no watchers.
    """

    def __init__(self, reader: Reader) -> None:
        self.watchers: dict[Watcher, str] = {}
        """The watchers, and the history that each wants."""
        self._reader = reader
        self._polling: asyncio.Task[None] | None = None
        self._closed = False
        self._newcomers: set[Watcher] = set()  # watchers that wait for their history
        self._marks = b""  # the last event with marks
        self._counted = events.Counted()
        self._refused_histories: Sequence[str] = ()
        self._said: set[str] = set()  # the refusals that were logged
        self._ahead = time.time() - time.monotonic()  # Redis's clock minus the monotonic clock

    def add(self, watcher: Watcher, last: str) -> None:
        """Send events to a watcher, from the next snapshot on.

        :arg last: which of the `replicas.HISTORIES` the watcher gets first.
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
        """Send a watcher no more events."""
        self.watchers.pop(watcher, None)
        self._newcomers.discard(watcher)

    async def close(self) -> None:
        """End every stream at once, and close the connection to Redis."""
        self._closed = True
        for watcher in self.watchers:
            watcher.end()
        self.watchers.clear()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])

    async def _poll(self) -> None:
        """Read and send a snapshot a second, until there are no watchers."""
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
        """Send the events of a snapshot, or an event that says why there is no snapshot."""
        try:
            snapshot = reading.result()
        except Exception as error:
            return await self._send(self._event_without_snapshot(error))
        self._ahead = snapshot.time - time.monotonic()
        counted = self._counted.since_last(snapshot)
        is_told_anew = counted is None
        if snapshot.moments:
            is_told_anew |= len(snapshot.refused_histories) < len(self._refused_histories)
            self._refused_histories = snapshot.refused_histories
        refused = [*self._refused_histories, *snapshot.refused]
        self._say(refused)
        await asyncio.sleep(0)  # visits have their turn
        event = await events.figures(snapshot, counted, refused)
        told, self._marks = self._marks, await events.marks(snapshot)
        whole = {
            last: events.history(snapshot, last) + self._marks + event for last in snapshot.moments
        }
        # A watcher may have come during the reading, and want a history that this snapshot does
        # not have. It waits for the next snapshot.
        firsts = {one: whole.get(self.watchers[one], b"") for one in self._newcomers}
        self._newcomers = {one for one, chunk in firsts.items() if not chunk}
        if is_told_anew:
            self._newcomers |= self.watchers.keys() - firsts.keys()
        news = event if told == self._marks else self._marks + event
        await self._send(news, firsts)

    def _event_without_snapshot(self, error: Exception) -> bytes:
        reason = self._reader.reason(error)
        if isinstance(error, RefusedError):
            self._say([reason])
        else:  # the counter logs that Redis is down, or is being moved
            log.debug("no snapshot: %s", reason)
        now = round(time.monotonic() + self._ahead, 3)
        state = "refused" if isinstance(error, RefusedError | ElsewhereError) else "down"
        return events.event(None, json_encode({"time": now, "redis": state, "reason": reason}))

    def _say(self, refused: Sequence[str]) -> None:
        """Log, once each, what Redis refuses to read, so that the live page cannot show it."""
        for one in refused:
            if one not in self._said and len(self._said) < MAX_SAID:
                self._said.add(one)
                log.warning("/live cannot show everything, as Redis refuses %s", one)

    async def _send(self, event: bytes, firsts: Mapping[Watcher, bytes] | None = None) -> None:
        """Send an event to all watchers; a watcher too slow for the event gets the history again.

        :arg firsts: what some watchers get in place of the event.
        """
        for number, watcher in enumerate(list(self.watchers), 1):
            chunk = (firsts or {}).get(watcher, event)
            if chunk and watcher in self.watchers and not watcher.send(chunk):
                self._newcomers.add(watcher)
            if number % WATCHERS_PER_TURN == 0:
                await asyncio.sleep(0)
