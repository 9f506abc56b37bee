"""What those who watch the live page are told: once a second, as long as there are any.

Events are what the HTML standard calls a server-sent event stream
(https://html.spec.whatwg.org/multipage/server-sent-events.html). One look at Redis a second, and
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

from counter import Snapshot, StatisticsReader

#: Seconds between two looks at Redis.
EVERY = 1.0

#: Seconds that the page shows.
HISTORY = 300

#: Milliseconds after which a page comes back, at least and at most: not all of them at once.
RETRY = (1000, 2000)

#: Those who watch that are written to before pages get their turn: 1,000 take some 10 ms.
AT_ONCE = 50

HEARTBEAT = b":\n\n"

log = logging.getLogger("friendlyhello")


class Watcher(Protocol):
    """Somebody who watches."""

    def send(self, chunk: bytes) -> None:
        """Write some of the stream, unless what was written before has not been read yet."""

    def end(self) -> None:
        """End the stream."""


class Broadcast:
    """Tells those who watch how the figures change.

    :arg reader: reads the figures; it is closed when nobody watches.
    """

    def __init__(self, reader: StatisticsReader) -> None:
        self.watchers: set[Watcher] = set()
        """Those who watch now."""
        self._reader = reader
        self._telling: asyncio.Task[None] | None = None
        self._closed = False
        self._event = b""  # the last one
        self._history: deque[tuple[float, int]] = deque(maxlen=HISTORY)  # time and total
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
        if self._telling is None:
            self._event = b""
            self._telling = asyncio.create_task(self._tell())
        if history := self._recent(since):
            watcher.send(_event("history", json_encode({"totals": history})))
        if self._event:
            watcher.send(self._event)

    def remove(self, watcher: Watcher) -> None:
        """Tell somebody no more."""
        self.watchers.discard(watcher)

    async def close(self) -> None:
        """End every stream, at once, and the connection to Redis."""
        self._closed = True
        for watcher in self.watchers:
            watcher.end()
        self.watchers.clear()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])

    async def _tell(self) -> None:
        """Look, and tell, until nobody watches any more."""
        loop = asyncio.get_running_loop()
        tick = loop.time()
        looking: asyncio.Task[Snapshot] | None = None
        try:
            while self.watchers:
                looking = looking or asyncio.create_task(self._reader.read())
                await asyncio.wait([looking], timeout=EVERY)
                if looking.done():
                    self._event = self._told(looking)
                    looking = None
                await self._send(HEARTBEAT if looking else self._event)
                tick = max(tick + EVERY, loop.time())
                await asyncio.sleep(tick - loop.time())
        finally:
            self._telling = None
            if looking is not None:
                looking.cancel()
                await asyncio.wait([looking])
            await self._reader.close()

    def _told(self, looking: asyncio.Task[Snapshot]) -> bytes:
        """Return the event that tells what a look has shown, or that it has shown nothing."""
        try:
            figures = looking.result()
        except Exception as error:
            log.debug("no figures: %s", error)
            now = time.monotonic() + self._ahead
            return _event(None, json_encode({"time": round(now, 3), "redis": "down"}))
        self._ahead = figures.time - time.monotonic()
        self._history.append((round(figures.time, 3), figures.total))
        replicas = [
            {"hostname": one.hostname, "visits": one.visits, "seen": round(one.seen, 1)}
            | ({"version": one.version} if one.version else {})
            for one in figures.replicas
        ]
        told = {
            "time": round(figures.time, 3),
            "redis": "up",
            "total": figures.total,
            "replicas": replicas,
        }
        return _event(None, json_encode(told), id=round(figures.time * 1000))

    async def _send(self, event: bytes) -> None:
        for number, watcher in enumerate(list(self.watchers), 1):
            if watcher in self.watchers:
                watcher.send(event)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _recent(self, since: float) -> list[tuple[float, int]]:
        since = max(since, time.monotonic() + self._ahead - HISTORY)
        return [(moment, total) for moment, total in self._history if moment > since]


def _event(kind: str | None, data: str, id: int | None = None) -> bytes:
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {id}"] if id is not None else []
    return "\n".join([*lines, f"data: {data}", "", ""]).encode()
