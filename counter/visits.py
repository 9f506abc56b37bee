"""Batches of visits: what waits in the queue is counted by the next command.

There is one connection and one batch under way at a time. A command is sent once, and a
connection whose reply is in doubt is closed, never read again. After any failure the counter is
off: visits are answered at once, while a background task probes for Redis.
"""

import asyncio
import contextlib
import functools
import logging
import math
import socket
import time
from typing import Literal, Protocol

from counter.connection import Command, Connection
from counter.connector import Connector, closed_on_error
from counter.statistics import ReplicaStatistics, StatisticsReader

KEY = "counter"

#: Seconds between two probes for Redis, or checks of an idle connection. "Back within 2 s"
#: rests on it.
PROBE_EVERY = 0.5

#: Seconds that a probe may take to connect, however long a visit may wait. A probe that is stuck
#: costs no time: the next one starts beside it.
PROBE_TIMEOUT = 2.0

#: Probes under way at once. Only look-ups that hang, which cannot be cancelled, add up to so many.
MAX_PROBES = 32

#: Seconds before the deadline at which WAIT ends by itself, and says how many acknowledged. Redis
#: looks at the clock ten times a second.
WAIT_MARGIN = 0.15

#: Visits that are answered in one turn of the loop; then others get theirs. Answered all at once,
#: hundreds would come back all at once, and wait for one command with nothing else to do.
ANSWERS_PER_TURN = 64

#: Redis refuses to raise an integer past 64 bits (https://redis.io/commands/incrby).
MAX_NUMBER = 2**63 - 1

#: A visit in the queue: its number, or None when there will be none.
Waiter = asyncio.Future[int | None]

#: Why a visit got no number: the counter was off, too many visits waited, Redis did not answer
#: within the deadline, it answered with an error or not at all, the server was stopping.
Reason = Literal["off", "crowded", "timeout", "error", "stopping"]

log = logging.getLogger("friendlyhello.visits")


class Observer(Protocol):
    """Is told what becomes of visits."""

    def counted(self, visits: int, seconds: float) -> None:
        """Take note of visits that one command has counted.

        :arg seconds: from sending the command to its reply.
        """

    def uncounted(self, visits: int, reason: Reason) -> None:
        """Take note of visits that get no number."""


class _NoObserver:
    def counted(self, visits: int, seconds: float) -> None:
        pass

    def uncounted(self, visits: int, reason: Reason) -> None:
        pass


class Visits:
    """Gives each visit its number.

    :arg url: where Redis is, as `counter.connector.Connector` reads it.
    :arg password: used instead of the URL's own.
    :arg sentinel_password: the sentinels' own.
    :arg timeout: seconds from a visit's arrival to its number, looking up the name,
        connecting, sending and reading included.
    :arg wait: replicas that must have acknowledged a number before it is shown
        (https://redis.io/commands/wait).
    :arg max_waiting: visits that may wait at once; those past it get no number.
    :arg observer: is told how many visits get a number, how fast, and how many do not.
    :arg hostname: the replica whose statistics the visits are added to; this host's when None.
    :arg version: the label of the version that the replica runs, if it has one.
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
        max_waiting: float = math.inf,
        observer: Observer | None = None,
        hostname: str | None = None,
        version: str | None = None,
    ) -> None:
        self._new_connector = functools.partial(
            Connector,
            url,
            key=KEY,
            password=password,
            sentinel_password=sentinel_password,
            timeout=min(timeout, PROBE_TIMEOUT),
        )
        self._connector = self._new_connector()
        self._statistics = ReplicaStatistics(KEY, hostname or socket.gethostname(), version or "")
        self._statistics_refused = False
        self._timeout = timeout
        self._wait = wait
        self._max_waiting = max_waiting
        self._observer: Observer = observer or _NoObserver()

        self._connection: Connection | None = None
        self._moved = False  # another Redis is the primary than the one connected to
        self._off = False
        self._queue: list[Waiter] = []
        self._batch: list[Waiter] = []  # those that the command under way counts
        self._deadline = 0.0  # of the first visit in the queue, so of all of them
        self._is_sending = False  # or is about to
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None  # ends the command under way
        self._connecting: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether visits are being counted, as far as is known."""
        return not self._off and self._keeper is not None

    def reader(self) -> StatisticsReader:
        """Return a reader of all replicas' statistics, from where these visits are counted."""
        return StatisticsReader(self._new_connector(), KEY)

    async def start(self, within: float) -> None:
        """Find Redis before the first visit asks for it; not found, the counter starts off.

        :arg within: seconds to wait for Redis.
        """
        self._keep()
        try:
            async with asyncio.timeout(within):
                redis = await self._connector.connect()
                async with closed_on_error(redis):
                    await redis.ping()
                self._connection = Connection(redis)
            log.info("counter on")
        except Exception as error:
            self._turn_off(error)

    async def close(self) -> None:
        """Stop looking for Redis and close the connection; visits that wait get no number."""
        tasks = [task for task in (self._keeper, self._connecting) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._off = True
        self._end_sending("stopping")

    async def count(self) -> int | None:
        """Count one visit.

        :return: its number, or None when Redis did not give one in time.
        """
        if self._off or len(self._queue) >= self._max_waiting:
            self._observer.uncounted(1, "off" if self._off else "crowded")
            return None
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        if not self._queue:
            self._deadline = loop.time() + self._timeout
        self._queue.append(waiter)
        self._keep()
        if not self._is_sending:
            self._is_sending = True
            loop.call_soon(self._send)  # those that arrive in this turn of the loop go along
        return await waiter

    # Sending: one command at a time, for all that wait.

    def _send(self) -> None:
        self._is_sending = bool(self._queue)
        if not self._queue:
            return
        if self._connection is None or self._is_unsound:
            self._reconnect()
            return
        self._batch, self._queue = self._queue, []
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._deadline, self._turn_off, TimeoutError())
        self._sent_at = time.perf_counter()  # the loop's own clock is too coarse
        visits = len(self._batch)
        self._connection.send(
            self._commands(visits, self._deadline),
            self._on_replies,
            alongside=self._statistics.commands(visits),
        )

    def _reconnect(self) -> None:
        self._is_sending = True
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            self._drop()
            async with asyncio.timeout_at(self._deadline):
                self._connection = Connection(await self._connector.connect())
            self._send()
        except Exception as error:
            # Not only Redis's errors: whatever a server may send, a page is answered.
            self._turn_off(error)

    def _commands(self, visits: int, deadline: float) -> list[Command]:
        """Return what raises the counter (https://redis.io/commands/incrby).

        :arg deadline: on the loop's clock; replicas have until a little before it.
        """
        commands: list[Command] = [("INCR", KEY) if visits == 1 else ("INCRBY", KEY, visits)]
        if self._wait:
            left = deadline - asyncio.get_running_loop().time()
            seconds = left - min(WAIT_MARGIN, left / 4)
            # 0 would wait for ever.
            commands.append(("WAIT", self._wait, max(1, int(seconds * 1000))))
        return commands

    def _counted_to(self, replies: list[int]) -> int:
        """Return what the counter holds.

        :raises ConnectionError: when too few replicas have acknowledged it.
        """
        number, *acknowledged = replies
        if not -MAX_NUMBER <= number <= MAX_NUMBER:
            raise ValueError(f"Redis answered with {number}, which has more than 64 bits")
        if acknowledged and acknowledged[0] < self._wait:
            raise ConnectionError(
                f"{acknowledged[0]} of {self._wait} replicas acknowledged the visits"
            )
        return number

    def _on_replies(self, replies: list[int] | Exception) -> None:
        try:
            if isinstance(replies, Exception):
                raise replies
            last = self._counted_to(replies)
        except Exception as error:
            self._turn_off(error)
            return
        self._stop_timer()
        self._note_refusal()
        batch, self._batch = self._batch, []
        self._observer.counted(len(batch), time.perf_counter() - self._sent_at)
        _answer_in_order(batch, last - len(batch) + 1)
        self._send()

    def _note_refusal(self) -> None:
        """Log, once, that the replica's statistics cannot be kept; visits count all the same."""
        refused = self._connection.refused if self._connection is not None else None
        if refused and not self._statistics_refused:
            self._statistics_refused = True
            log.warning("not all that /live shows can be kept: %s", refused)

    # On and off.

    def _turn_off(self, error: Exception) -> None:
        self._off = True
        log.warning("counter off: %s", _reason(error))
        self._end_sending("timeout" if isinstance(error, TimeoutError) else "error")

    def _end_sending(self, reason: Reason) -> None:
        """Answer all that wait without a number; a reply that still comes is for nobody."""
        self._stop_timer()
        self._drop()
        self._is_sending = False
        waiters = self._batch + self._queue
        self._batch, self._queue = [], []
        self._observer.uncounted(len(waiters), reason)
        for waiter in waiters:
            _answer(waiter, None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connection())

    async def _keep_connection(self) -> None:
        """While off, look for Redis; while on, replace a connection that is none any more."""
        while True:
            await asyncio.sleep(PROBE_EVERY)
            if self._off:
                self._connection = await self._find()
                self._off = False
                log.info("counter on")
            else:
                self._moved = await self._connector.has_moved()
                if self._is_unsound and not self._is_sending:
                    self._deadline = asyncio.get_running_loop().time() + self._timeout
                    self._reconnect()

    @property
    def _is_unsound(self) -> bool:
        return self._connection is not None and (self._moved or not self._connection.is_sound)

    async def _find(self) -> Connection:
        """Try until Redis counts again; a fresh try at each tick, as a stuck one may stay so."""
        found: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

        async def probe() -> None:
            with contextlib.suppress(Exception):
                connection = await self._probe()
                if found.done():
                    connection.close()
                else:
                    found.set_result(connection)

        probes: set[asyncio.Task[None]] = set()
        try:
            while not found.done():
                if len(probes) < MAX_PROBES:
                    task = asyncio.create_task(probe())
                    probes.add(task)
                    task.add_done_callback(probes.discard)
                await asyncio.wait([found], timeout=PROBE_EVERY)
            return found.result()
        finally:
            for task in probes:
                task.cancel()
            await asyncio.gather(*probes, return_exceptions=True)

    async def _probe(self) -> Connection:
        """Connect, and ask just what a visit asks, adding nothing.

        A visit may have to wait for the command under way and then for its own, so a Redis
        that takes more than half the deadline to reply cannot serve.
        """
        connection = Connection(await self._connector.connect())
        try:
            deadline = asyncio.get_running_loop().time() + min(self._timeout, PROBE_TIMEOUT) / 2
            async with asyncio.timeout_at(deadline):
                replies = await connection.ask(self._commands(0, deadline))
            if self._counted_to(replies) == MAX_NUMBER:
                raise OverflowError("the counter is at its 64-bit end")
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        connection, self._connection, self._moved = self._connection, None, False
        if connection is not None:
            connection.close()


def _answer_in_order(waiters: list[Waiter], number: int) -> None:
    at_once, later = waiters[:ANSWERS_PER_TURN], waiters[ANSWERS_PER_TURN:]
    for waiter in at_once:
        _answer(waiter, number)
        number += 1
    if later:
        asyncio.get_running_loop().call_soon(_answer_in_order, later, number)


def _answer(waiter: Waiter, number: int | None) -> None:
    if not waiter.done():  # its visitor may have given up
        waiter.set_result(number)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer from Redis in time"
    return str(error) or type(error).__name__
