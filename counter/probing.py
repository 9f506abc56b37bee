"""Probing: looking for a Redis that counts, one look after the other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from counter.connection import MAX_NUMBER, CutError, RedisConnection, Request
from counter.connector import Connector
from counter.delivery import Delivery, is_refusal
from counter.redis_internals import was_cut

#: Seconds between two probes for Redis, or checks of an idle connection. "Back within 2 s"
#: rests on it.
PROBE_EVERY = 0.5

#: Seconds that a probe may take to connect, however long a visit may wait. A probe that is stuck
#: costs no time: the next one starts beside it.
PROBE_TIMEOUT = 2.0

#: Seconds after which a stuck probe is given up, longer than any that may still succeed takes. So
#: a server that takes connections and never answers is not waited for while another has come.
STUCK_AFTER = 5.0

#: Times that the script is refused, or the connection ends at it, while a plain command is answered
#: each time: after them visits count by plain commands. A proxy that knows no scripts hangs up on
#: them, and so may a network that cuts connections, but not for so often.
TRIES = 5

#: Seconds between two tries to hand numbers on.
HAND_ON_EVERY = 0.05

#: How a node says that another one has the key.
REDIRECTIONS = ("MOVED", "ASK")


def is_cut(error: Exception) -> bool:
    """Tell whether a connection that had been made has ended, so that another one may do."""
    return isinstance(error, CutError) or was_cut(error)


def is_redirection(error: Exception, connector: Connector) -> bool:
    """Tell whether a node of a cluster says that another one has the key."""
    return connector.in_cluster and str(error).startswith(REDIRECTIONS)


class Prober:
    """Opens connections on which Redis counts.

    :arg connector: the way to Redis.
    :arg delivery: makes what a probe asks.
    :arg timeout: seconds that a visit may wait.
    """

    def __init__(self, connector: Connector, delivery: Delivery, timeout: float) -> None:
        self._connector = connector
        self._delivery = delivery
        self._timeout = min(timeout, PROBE_TIMEOUT)

    async def find(self, on_error: Callable[[Exception], None]) -> RedisConnection:
        """Return a connection on which Redis counts, once there is one.

        :arg on_error: is given what each probe meets.
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
        """Connect, and ask just what a visit asks, adding nothing.

        With a token, so that no older one can be applied any more: what an older one got, if
        nobody was shown it, is spare.

        :raises Exception: when there is no such Redis.
        """
        request, why = self._delivery.request(0), ""
        for _ in range(TRIES if request.sequence else 0):
            try:
                return await self._connect_and_ask(request)
            except Exception as error:
                if not isinstance(error, CutError) and not is_refusal(error):
                    raise
                why = self._connector.reason(error)
            # Where no command is answered, it is not the script that is refused.
            (await self._connect_and_ask(self._delivery.plain_request(0))).close()
            request = self._delivery.tokens.request(0)
        if why:
            self._delivery.refuse(why)
        return await self._connect_and_ask(self._delivery.request(0))

    async def hand_on(self) -> None:
        """Leave to others what Redis has for this process, and nobody was shown.

        :raises Exception: when Redis does not take it.
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

        A visit may have to wait for the request under way and then for its own, so a Redis
        that takes more than half the deadline to reply cannot serve.
        """
        connection = RedisConnection(*await self._connector.try_once())
        try:
            deadline = asyncio.get_running_loop().time() + self._timeout / 2
            async with asyncio.timeout_at(deadline):
                replies = await connection.ask(self._delivery.waiting(request, deadline))
            if self._delivery.numbers(replies, request)[0].stop > MAX_NUMBER:
                raise OverflowError("the counter is at its 64-bit end")
        except BaseException:
            connection.close()
            raise
        return connection


async def _first(probe: Callable[[], Awaitable[RedisConnection]], every: float) -> RedisConnection:
    """Return the first connection that a probe finds.

    :arg probe: opens a connection that counts, or raises; it ends at some time.
    :arg every: seconds between two probes. A stuck one may stay so, so the next is a fresh one.
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
