"""The counter's face: gives each visit its number."""

import asyncio
import functools
import math

from counter.batches import Batches
from counter.connector import Connector, Password
from counter.delivery import Delivery
from counter.link import Link
from counter.lookout import Lookout
from counter.probing import PROBE_TIMEOUT
from counter.roles import Beside, Observer, Reason
from counter.tokens import KEY


class _NoObserver:
    def counted(self, visits: int, seconds: float) -> None:
        pass

    def uncounted(self, visits: int, reason: Reason) -> None:
        pass


class Visits:
    """Gives each visit its number.

    :arg url: where Redis is, as `counter.connector.Connector` reads it.
    :arg password: is called for each connection; its result replaces the password in the URL.
    :arg sentinel_password: the same for the sentinels.
    :arg timeout: seconds from a visit's arrival to its number, looking up the name,
        connecting, sending and reading included.
    :arg wait: replicas that must have acknowledged a number before it is shown
        (https://redis.io/commands/wait).
    :arg max_waiting: visits that may wait at the same time. Further visits get no number.
    :arg observer: hears how many visits get a number, how fast, and how many get none.
    :arg beside: gives the commands that go beside the visits, if there are any.
    :raises ValueError: when the URL cannot be read.
    :raises OSError: when a certificate that the URL names cannot be loaded.
    """

    def __init__(
        self,
        url: str,
        *,
        password: Password | None = None,
        sentinel_password: Password | None = None,
        timeout: float = 2.0,
        wait: int = 0,
        max_waiting: float = math.inf,
        observer: Observer | None = None,
        beside: Beside | None = None,
    ) -> None:
        self.new_connector = functools.partial(
            Connector,
            url,
            key=KEY,
            password=password,
            sentinel_password=sentinel_password,
            timeout=min(timeout, PROBE_TIMEOUT),
        )
        """Return a connector to the same Redis, for a caller that needs its own connection."""
        connector = self.new_connector(says_moves=True)
        self._delivery = Delivery(KEY, wait)
        self._link = Link(connector, self._delivery, timeout=timeout, beside=beside)
        told = observer or _NoObserver()
        self._batches = Batches(self._link, timeout=timeout, max_waiting=max_waiting, observer=told)
        self._lookout = Lookout(self._link, connector, self._delivery, timeout)

    @property
    def up(self) -> bool:
        """Whether visits are being counted, as far as is known."""
        return self._lookout.is_looking and not self._link.is_off

    @property
    def reason(self) -> str:
        """Why visits are not being counted, without secrets; empty when they are."""
        return self._link.reason

    @property
    def exactly_once(self) -> bool:
        """Whether Redis runs the script, as far as is known. If not, visits count at most once."""
        return self._delivery.exactly_once

    @property
    def refusal(self) -> str:
        """How Redis refused the script, while visits count at most once; else empty."""
        return self._delivery.refusal

    @property
    def warning(self) -> str:
        """A warning about Redis for the operator; empty when there is none."""
        return self._lookout.eviction.warning

    @property
    def process_id(self) -> str:
        """The random id of this process in Redis. It is made at its first use, after forks."""
        return self._delivery.tokens.process_id

    @property
    def shown(self) -> int:
        """How many numbers this process has shown."""
        return self._delivery.tokens.shown

    async def start(self, within: float) -> None:
        """Find Redis before the first visit needs it. If this fails, the counter is off at first.

        :arg within: seconds to wait for Redis.
        """
        await self._lookout.start(within)

    async def count(self) -> int | None:
        """Count one visit.

        :return: its number, or None when Redis did not give one in time. If the caller does not
            show the number, it must call `give_back`.
        """
        if not self._lookout.is_looking:
            self._lookout.begin()
        waiter = self._batches.add()
        if waiter is None:
            return None
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and (number := waiter.result()) is not None:
                self.give_back(number)
            raise

    def give_back(self, number: int) -> None:
        """Give a number back, because it was not shown. The next visit gets it.

        :arg number: the result of `count`.
        """
        self._batches.give_back(number)

    async def close(self) -> None:
        """Stop counting. Visits that wait get no number.

        Other servers get the numbers that were not shown.
        """
        self._batches.close()
        await asyncio.sleep(0)  # a caller that has just got its number may give it back
        await self._lookout.close()
