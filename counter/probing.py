"""Probing: the search for a Redis that counts, probe after probe."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from counter.connection import MAX_NUMBER, CutError, RedisConnection, Request
from counter.connector import Connector
from counter.delivery import Delivery, is_refusal
from counter.redis_internals import was_cut

#: Seconds between two probes for Redis, or two checks of an idle connection. The promise "back
#: within 2 s" depends on it.
PROBE_EVERY = 0.5

#: The most seconds that a probe may take to connect, even if a visit may wait longer. A stuck probe
#: costs no time, because the next probe starts beside it.
PROBE_TIMEOUT = 2.0

#: Seconds after which the prober gives a stuck probe up. A probe that takes longer cannot succeed:
#: its server accepts connections and never answers. In the meantime another server may have taken
#: the address.
STUCK_AFTER = 5.0

#: How many times in a row Redis must refuse the script, or the connection must end at the script,
#: before visits count by plain commands. Each time, a plain command must get its answer. A proxy
#: that knows no scripts closes the connection each time; a bad network cuts the connection less
#: often.
TRIES = 5

#: Seconds between two attempts to hand numbers on.
HAND_ON_EVERY = 0.05

#: How a node says that another one has the key.
REDIRECTIONS = ("MOVED", "ASK")


def is_cut(error: Exception) -> bool:
    """Tell whether an open connection has ended. If so, another connection may work."""
    return isinstance(error, CutError) or was_cut(error)


def is_redirection(error: Exception, connector: Connector) -> bool:
    """Tell whether a node of a cluster says that another one has the key."""
    return connector.in_cluster and str(error).startswith(REDIRECTIONS)


class Prober:
    """Opens connections on which Redis counts.

    :arg connector: the way to Redis.
    :arg delivery: makes the requests of the probes.
    :arg timeout: seconds that a visit may wait.
    """

    def __init__(self, connector: Connector, delivery: Delivery, timeout: float) -> None:
        self._connector = connector
        self._delivery = delivery
        self._timeout = min(timeout, PROBE_TIMEOUT)

    async def find(self, on_error: Callable[[Exception], None]) -> RedisConnection:
        """Look for Redis until it counts, and return the connection.

        :arg on_error: gets the error of each probe that fails.
        """

        async def look() -> RedisConnection:
            try:
                async with asyncio.timeout(STUCK_AFTER):
                    return await self.probe()
            except Exception as error:
                on_error(error)
                raise

        return await _first(look, PROBE_EVERY)

    async def probe(self) -> RedisConnection:
        """Connect, and send what a visit sends, but ask for no number.

        The request has a token, so Redis applies no older token after it. If an older token got
        numbers that were not shown, they become spare.

        :return: a connection on which Redis counts.
        :raises Exception: when Redis does not count.
        """
        request, why = self._delivery.request(0), ""
        for _ in range(TRIES if request.sequence else 0):
            try:
                return await self._connect_and_ask(request)
            except Exception as error:
                if not isinstance(error, CutError) and not is_refusal(error):
                    raise
                why = self._connector.reason(error)
            # If Redis does not answer a plain command either, it did not refuse the script.
            (await self._connect_and_ask(self._delivery.plain_request(0))).close()
            request = self._delivery.tokens.request(0)
        if why:
            self._delivery.refuse(why)
        return await self._connect_and_ask(self._delivery.request(0))

    async def hand_on(self) -> None:
        """Make the numbers that were not shown spare, so that other servers get them.

        :raises Exception: when Redis does not take them.
        """
        while not self._delivery.tokens.settled:
            try:
                (await self._connect_and_ask(self._delivery.tokens.request(0))).close()
            except Exception as error:
                if not is_cut(error) and not is_redirection(error, self._connector):
                    raise
                await asyncio.sleep(HAND_ON_EVERY)

    async def _connect_and_ask(self, request: Request) -> RedisConnection:
        """Open a connection on which Redis answers a request in time.

        A visit may have to wait for two requests: the one under way, and then its own. So a Redis
        that takes more than half the deadline to reply cannot serve.
        """
        connection = RedisConnection(*await self._connector.try_once())
        try:
            deadline = asyncio.get_running_loop().time() + self._timeout / 2
            async with asyncio.timeout_at(deadline):
                replies = await connection.ask(self._delivery.waiting(request, deadline))
            if self._delivery.numbers(replies, request)[0].stop > MAX_NUMBER:
                raise OverflowError("the counter has reached the end of its 64 bits")
        except BaseException:
            connection.close()
            raise
        return connection


async def _first(probe: Callable[[], Awaitable[RedisConnection]], every: float) -> RedisConnection:
    """Return the first connection that a probe finds.

    :arg probe: opens a connection that counts, or raises. It must end at some time.
    :arg every: seconds between the starts of two probes. A probe may be stuck, so the next one does
        not wait for it.
    """
    found: asyncio.Future[RedisConnection] = asyncio.get_running_loop().create_future()

    async def look() -> None:
        with contextlib.suppress(Exception):
            connection = await probe()
            if found.done():
                connection.close()
            else:
                found.set_result(connection)

    probes: set[asyncio.Task[None]] = set()
    try:
        while not found.done():
            task = asyncio.create_task(look())
            probes.add(task)
            task.add_done_callback(probes.discard)
            await asyncio.wait([found], timeout=every)
        return found.result()
    finally:
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
