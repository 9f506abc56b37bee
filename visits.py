"""The visit counter: one integer in Redis, raised in groups, bounded in time.

Visits that arrive while a command is under way wait in a queue and are counted together by
the next one. There is one connection and one command under way at a time; a command is sent
once, and a connection whose reply is in doubt is closed, never read again. After any failure
the counter is off: visits are answered at once while a background task looks for Redis.
"""

import asyncio
import contextlib
import logging

from redis.asyncio import Redis

import limits
from connecting import Connector, close, is_readable, send

KEY = "counter"

#: Seconds between two looks for Redis, or at an idle connection. "Back within 2 s" rests on it.
PROBE_EVERY = 0.5

#: Seconds that a probe may take to connect, however long a visit may wait. A try that is
#: stuck costs no time: the next one starts beside it.
PATIENCE = 2.0

#: Tries under way at once. Only hung name look-ups, which cannot be cancelled, add up to so many.
MOST_TRIES = 32

#: Seconds before the deadline at which WAIT ends by itself, and says how many acknowledged. Redis
#: looks at the clock ten times a second.
WAIT_MARGIN = 0.15

#: Redis refuses to raise an integer past 64 bits (https://redis.io/commands/incrby).
LAST_NUMBER = 2**63 - 1

#: A visit in the queue: its number, or None when there will be none.
Waiter = asyncio.Future[int | None]

log = logging.getLogger("friendlyhello.visits")


class Visits:
    """Gives each visit its number.

    :arg url: where Redis is, as `connecting.Connector` reads it.
    :arg password: used instead of the URL's own.
    :arg sentinel_password: the sentinels' own.
    :arg timeout: seconds from a visit's arrival to its number, looking up the name,
        connecting, sending and reading included.
    :arg wait: replicas that must have acknowledged a number before it is shown
        (https://redis.io/commands/wait).
    :arg most_waiting: visits that may wait at once; those past it get no number.
    :raises ValueError: when the URL cannot be read.
    :raises OSError: when a certificate that the URL names cannot be loaded.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        sentinel_password: str | None = None,
        timeout: float = 2.0,
        wait: int = 0,
        most_waiting: int = limits.WAITING_VISITS,
    ) -> None:
        self._connector = Connector(
            url,
            key=KEY,
            password=password,
            sentinel_password=sentinel_password,
            patience=min(timeout, PATIENCE),
        )
        self._timeout = timeout
        self._wait = wait
        self._most_waiting = most_waiting

        self._redis: Redis | None = None
        self._moved = False  # another Redis is the primary than the one connected to
        self._off = False
        self._queue: list[Waiter] = []
        self._under_way: list[Waiter] = []  # those that the command under way counts
        self._deadline = 0.0  # of the first visit in the queue, so of all of them
        self._sender: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether visits are being counted, as far as is known."""
        return not self._off and self._keeper is not None

    async def start(self, patience: float) -> None:
        """Find Redis before the first visit asks for it; not found, the counter starts off.

        :arg patience: seconds to wait for Redis.
        """
        self._keep()
        try:
            async with asyncio.timeout(patience):
                self._redis = await self._connector.connect()
                await self._redis.ping()
            log.info("counter on")
        except Exception as error:
            await self._turn_off(error)

    async def close(self) -> None:
        """Stop looking for Redis and close the connection; visits that wait get no number."""
        tasks = [task for task in (self._keeper, self._sender) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._off = True
        self._answer_without_number()
        await self._drop()

    async def count(self) -> int | None:
        """Count one visit.

        :return: its number, or None when Redis did not give one in time.
        """
        if self._off or len(self._queue) >= self._most_waiting:
            return None
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        if not self._queue:
            self._deadline = loop.time() + self._timeout
        self._queue.append(waiter)
        self._keep()
        self._send_soon()
        return await waiter

    # Sending: one command at a time, for all that wait.

    def _send_soon(self) -> None:
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            while True:
                async with asyncio.timeout_at(self._deadline):
                    redis = await self._sound_connection()
                    batch, self._queue = self._queue, []
                    if not batch:  # woken for the connection's sake alone
                        return
                    self._under_way = batch
                    last = await self._raise_counter(redis, len(batch), self._deadline)
                for number, waiter in enumerate(batch, last - len(batch) + 1):
                    _answer(waiter, number)
                if not self._queue:
                    return
        except Exception as error:
            # Not only Redis's errors: whatever a server may send, a page is answered.
            await self._turn_off(error)
        finally:
            self._sender = None

    async def _sound_connection(self) -> Redis:
        """Return a connection on which every command has had its reply, and nothing else."""
        if await self._is_unsound():
            await self._drop()
        if self._redis is None:
            self._redis = await self._connector.connect()
        return self._redis

    # On and off.

    async def _turn_off(self, error: Exception) -> None:
        self._off = True
        self._answer_without_number()
        log.warning("counter off: %s", _reason(error))
        await self._drop()

    def _answer_without_number(self) -> None:
        waiters = self._under_way + self._queue
        self._under_way, self._queue = [], []
        for waiter in waiters:
            _answer(waiter, None)

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connection())

    async def _keep_connection(self) -> None:
        """While off, look for Redis; while on, replace a connection that is none any more."""
        while True:
            await asyncio.sleep(PROBE_EVERY)
            if self._off:
                self._redis = await self._find()
                self._off = False
                log.info("counter on")
            else:
                self._moved = await self._connector.has_moved()
                if self._sender is None and not self._off and await self._is_unsound():
                    self._deadline = asyncio.get_running_loop().time() + self._timeout
                    self._send_soon()

    async def _is_unsound(self) -> bool:
        return self._redis is not None and (self._moved or await is_readable(self._redis))

    async def _find(self) -> Redis:
        """Try until Redis counts again; a fresh try at each tick, as a stuck one may stay so."""
        found: asyncio.Future[Redis] = asyncio.get_running_loop().create_future()

        async def attempt() -> None:
            with contextlib.suppress(Exception):
                redis = await self._probe()
                if found.done():
                    await close(redis)
                else:
                    found.set_result(redis)

        tries: set[asyncio.Task[None]] = set()
        try:
            while not found.done():
                if len(tries) < MOST_TRIES:
                    task = asyncio.create_task(attempt())
                    tries.add(task)
                    task.add_done_callback(tries.discard)
                await asyncio.wait([found], timeout=PROBE_EVERY)
            return found.result()
        finally:
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    async def _probe(self) -> Redis:
        """Connect, and ask just what a visit asks, adding nothing.

        A visit may have to wait for the command under way and then for its own, so a Redis
        that takes more than half the deadline to reply cannot serve.
        """
        redis = await self._connector.connect()
        try:
            seconds = min(self._timeout, PATIENCE) / 2
            async with asyncio.timeout(seconds) as limit:
                if await self._raise_counter(redis, 0, limit.when()) == LAST_NUMBER:
                    raise OverflowError("the counter is at its 64-bit end")
        except BaseException:
            await close(redis)
            raise
        return redis

    async def _raise_counter(self, redis: Redis, visits: int, deadline: float | None) -> int:
        """Send one command (https://redis.io/commands/incrby) and return what the counter holds.

        :arg deadline: on the loop's clock, kept by the caller; replicas have until then.
        :raises ConnectionError: when too few replicas have acknowledged it.
        """
        command = ("INCR", KEY) if visits == 1 else ("INCRBY", KEY, visits)
        reply = await send(redis, *command)
        if type(reply) is not int or not -LAST_NUMBER <= reply <= LAST_NUMBER:
            raise ValueError(f"{command[0]} was answered with {repr(reply)[:100]}")
        if self._wait:
            left = (deadline or 0.0) - asyncio.get_running_loop().time()
            seconds = left - min(WAIT_MARGIN, left / 4)
            # 0 would wait for ever.
            acknowledged = await redis.wait(self._wait, max(1, int(seconds * 1000)))
            if acknowledged < self._wait:
                raise ConnectionError(
                    f"{acknowledged} of {self._wait} replicas acknowledged the visits"
                )
        return reply

    async def _drop(self) -> None:
        redis, self._redis, self._moved = self._redis, None, False
        if redis is not None:
            await close(redis)


def _answer(waiter: Waiter, number: int | None) -> None:
    if not waiter.done():  # its visitor may have given up
        waiter.set_result(number)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer from Redis in time"
    return str(error) or type(error).__name__
