"""The lookout finds Redis at the start and while the counter is off, and looks after the link."""

import asyncio
import logging

from counter import probing
from counter.connection import RedisConnection
from counter.connector import Connector
from counter.delivery import Delivery
from counter.eviction import Eviction
from counter.link import Link
from counter.probing import Prober

#: Seconds that the server, at its end, gives Redis to take the numbers that were not shown.
HAND_ON_TIMEOUT = 0.4

#: Seconds between two tokens that prolong the record of the process. Redis keeps the record for a
#: day and an hour. If each token prolonged the record, Redis would spend a tenth of its time on
#: this.
RENEW_EVERY = 3600.0

#: Seconds between two questions whether Redis may evict keys. Somebody may change its settings.
ASK_EVERY = 60.0

log = logging.getLogger("friendlyhello.visits")


class Lookout:
    """Keeps a link to a Redis that counts.

    :arg link: the link.
    :arg connector: the way to Redis.
    :arg delivery: makes the requests of the probes.
    :arg timeout: seconds that a visit may wait.
    """

    def __init__(
        self, link: Link, connector: Connector, delivery: Delivery, timeout: float
    ) -> None:
        self._link = link
        self._connector = connector
        self._delivery = delivery
        self._prober = Prober(connector, delivery, timeout)
        self.eviction = Eviction(connector)
        """Whether Redis may evict keys."""
        self.is_looking = False
        """Whether the lookout has begun."""
        self._looking: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look from now on, until `close`."""
        if not self.is_looking:
            self.is_looking = True
            self._looking = asyncio.create_task(self._look())

    async def start(self, within: float) -> None:
        """Find Redis before the first visit needs it. If this fails, the counter is off at first.

        :arg within: seconds to wait for Redis.
        """
        self.begin()
        self._link.hold()
        try:
            async with asyncio.timeout(within):
                self._turn_on(await self._prober.probe())
        except Exception as error:
            self._link.turn_off(error)

    async def _look(self) -> None:
        """While the counter is off, look for Redis. While it is on, look after the connection."""
        loop = asyncio.get_running_loop()
        renew_at, ask_at = loop.time() + RENEW_EVERY, loop.time() + ASK_EVERY
        while True:
            await asyncio.sleep(probing.PROBE_EVERY)
            if loop.time() >= renew_at:
                renew_at += RENEW_EVERY
                self._delivery.tokens.renew()
            if loop.time() >= ask_at:
                ask_at = loop.time() + ASK_EVERY
                self._ask()
            if self._link.is_off:
                self._turn_on(await self._prober.find(self._link.still_off))
            else:
                self._link.look_after(moved=await self._connector.has_moved())

    def _turn_on(self, connection: RedisConnection) -> None:
        self._link.turn_on(connection)
        self._ask()

    def _ask(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self.eviction.look())

    async def close(self) -> None:
        """Stop the link. Other servers get the numbers that were not shown."""
        tasks = [task for task in (self._looking, self._asking) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._link.stop()
        try:
            async with asyncio.timeout(HAND_ON_TIMEOUT):
                await self._prober.hand_on()
        except Exception as error:
            if self._delivery.exactly_once:
                why = self._connector.reason(error)
                log.warning("numbers that were shown to nobody may be missing: %s", why)
