"""Batches of visits: what waits in the queue is counted by the next request.

There is one connection and one batch under way at a time. A batch whose reply is lost is sent
again over a new connection until its deadline, where Redis knows its token. After any other
failure the counter is off: visits are answered at once, while a background task probes for Redis.
"""

import asyncio
import functools
import itertools
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Literal, Protocol

from redis.exceptions import RedisError, ResponseError

from counter.connection import MAX_NUMBER, Connection, CutError, Request, integer, packed
from counter.connector import Connector, Password
from counter.delivery import Delivery, Numbers
from counter.probing import find
from counter.redis_internals import was_cut

KEY = "counter"

#: Seconds between two probes for Redis, or checks of an idle connection. "Back within 2 s"
#: rests on it.
PROBE_EVERY = 0.5

#: Seconds that a probe may take to connect, however long a visit may wait. A probe that is stuck
#: costs no time: the next one starts beside it.
PROBE_TIMEOUT = 2.0

#: Seconds after which a stuck probe is given up, longer than any that may still succeed takes. So
#: a server that takes connections and never answers is not waited for while another has come.
STUCK_AFTER = 5.0

#: Seconds between two times that a batch is sent again, at first and at most. The first time is
#: at once.
BACKOFF, MAX_BACKOFF = 0.001, 0.05

#: Seconds that the end waits until Redis has the numbers that nobody was shown.
HAND_ON_TIMEOUT = 0.4

#: Seconds before the deadline at which WAIT ends by itself, and says how many acknowledged. Redis
#: looks at the clock ten times a second.
WAIT_MARGIN = 0.15

#: Visits that are answered in one turn of the loop; then requests are read. Answered all at once,
#: hundreds would come back all at once, and wait for one command with nothing else to do.
ANSWERS_PER_TURN = 128

#: Visits of a large batch, and turns of the loop from its reply to the next batch: those who come
#: back at once go along. That is a third fewer commands with 64 connections, and 1.06 times the
#: pages. After a smaller one it is a single turn: 1.08 times the pages with 8 connections.
LARGE_BATCH, GATHER_TURNS = 10, 3

#: Batches of one visit after which the next visit is sent at once, which is 3 % of its time, and
#: does not wait for others that arrive in the same turn of the loop.
ALONE = 8

#: Seconds for which the loop does not sleep while such a visit waits, where the last reply came
#: within them. To wake takes as long as a Redis nearby takes to reply: 9 % of the visit's time.
BUSY_POLL = 150e-6

#: Reasons for being off that are logged, one line each, until the counter is on again. A probe
#: finds one twice a second, and some name an address or a port that changes.
MAX_REASONS = 8

#: How a node says that another one has the key.
REDIRECTIONS = ("MOVED", "ASK")

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


class Beside(Protocol):
    """What is sent beside the visits, for others to see; the counter does not read it."""

    def commands(self, key: str, shown: int, visits: int, scripts: bool) -> Sequence[bytes]:
        """Return commands, as `counter.packed` makes them, that go after a request for visits.

        Mostly there are none.

        :arg key: the process's record in Redis, a hash, ``{counter}:process:ID``.
        :arg shown: visits that the process had shown before.
        :arg visits: how many the request asks for.
        :arg scripts: whether Redis runs scripts, as far as is known.
        """

    def refused(self, why: str) -> None:
        """Hear of an error that one of these got: its first word, a colon, the error's text."""

    def was_away(self, start: float, end: float, reason: str) -> None:
        """Hear that the process was without Redis; seconds of the monotonic clock."""


class _NothingBeside:
    def commands(self, key: str, shown: int, visits: int, scripts: bool) -> Sequence[bytes]:
        return ()

    def refused(self, why: str) -> None:
        pass

    def was_away(self, start: float, end: float, reason: str) -> None:
        pass


class _NoObserver:
    def counted(self, visits: int, seconds: float) -> None:
        pass

    def uncounted(self, visits: int, reason: Reason) -> None:
        pass


class Visits:
    """Gives each visit its number.

    :arg url: where Redis is, as `counter.connector.Connector` reads it.
    :arg password: asked for at each connection, and used instead of the URL's own.
    :arg sentinel_password: the sentinels' own, likewise.
    :arg timeout: seconds from a visit's arrival to its number, looking up the name,
        connecting, sending and reading included.
    :arg wait: replicas that must have acknowledged a number before it is shown
        (https://redis.io/commands/wait).
    :arg max_waiting: visits that may wait at once; those past it get no number.
    :arg observer: is told how many visits get a number, how fast, and how many do not.
    :arg beside: what is sent beside them, if anything.
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
        self._connector = self.new_connector()
        self._beside: Beside = beside or _NothingBeside()
        self._delivery = Delivery(KEY, lambda: self.process_id, self._beside.commands)
        self._fault_noted = False
        self._timeout = timeout
        self._wait = wait
        self._max_waiting = max_waiting
        self._observer: Observer = observer or _NoObserver()

        self._connection: Connection | None = None
        self._moved = False  # another Redis is the primary than the one connected to
        self._off = False
        self._reason = ""  # why
        self._off_since = (0.0, "")  # on the monotonic clock, and why at first
        self._reasons: set[str] = set()  # that have been logged since
        self._queue: list[Waiter] = []
        self._batch: list[Waiter] = []  # those whom the request under way is for
        self._answers: deque[tuple[Waiter, int]] = deque()  # that Redis has given
        self._request = Request(b"")
        self._deadline = 0.0  # of the first visit in the queue, so of all of them
        self._batch_deadline = 0.0
        self._is_sending = False  # or is about to
        self._singles = 0  # batches of one visit, one after the other
        self._sent_at = 0.0
        self._is_near = False  # Redis: it has just replied within `BUSY_POLL`
        self._timer: asyncio.TimerHandle | None = None  # ends what waits too long
        self._backoff = 0.0
        self._connecting: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether visits are being counted, as far as is known."""
        return not self._off and self._keeper is not None

    @property
    def reason(self) -> str:
        """Why visits are not being counted, without secrets; empty when they are."""
        return self._reason if self._off else ""

    @property
    def exactly_once(self) -> bool:
        """Whether Redis runs the script, as far as is known; else visits count at most once."""
        return self._delivery.exactly_once

    @functools.cached_property
    def process_id(self) -> str:
        """What tells this process from all others; made late, as it may be forked."""
        return secrets.token_urlsafe(12)

    @property
    def shown(self) -> int:
        """Numbers shown so far."""
        return self._delivery.shown

    async def start(self, within: float) -> None:
        """Find Redis before the first visit asks for it; not found, the counter starts off.

        :arg within: seconds to wait for Redis.
        """
        self._keep()
        try:
            async with asyncio.timeout(within):
                connection = await self._probe()
            if self._is_sending or self._connection or self._off:  # a visit has come meanwhile
                connection.close()
            else:
                self._connection = connection
                log.info("counter on")
        except Exception as error:
            self._turn_off(error)

    async def close(self) -> None:
        """Stop looking for Redis and close the connection; visits that wait get no number.

        Numbers that nobody was shown are left to the others.
        """
        tasks = [task for task in (self._keeper, self._connecting) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._off = True
        self._end_sending("stopping")
        if self._timer is not None:
            self._timer.cancel()
        await self._hand_on()

    async def _hand_on(self) -> None:
        try:
            async with asyncio.timeout(HAND_ON_TIMEOUT):
                while not self._delivery.settled:
                    await self._try_to_hand_on()
        except Exception as error:
            if self.exactly_once:
                why = self._connector.reason(error)
                log.warning("numbers that nobody was shown may be missing: %s", why)

    async def _try_to_hand_on(self) -> None:
        try:
            (await self._connect_and_ask(self._delivery.settlement())).close()
        except Exception as error:
            if not self._may_do_elsewhere(error):
                raise
            await asyncio.sleep(MAX_BACKOFF)

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
        if self._timer is None:
            self._keep_deadline()
        self._keep()
        if not self._is_sending:
            self._is_sending = True
            if self._singles > ALONE:
                self._send()
                self._busy_poll(self._sent_at)
            else:
                loop.call_soon(self._send)  # those that arrive in this turn of the loop go along
        return await waiter

    # Sending: one request at a time, for all that wait.

    def _send(self) -> None:
        self._is_sending = bool(self._batch or self._queue)
        if not self._is_sending:
            return
        if self._connection is None or self._is_unsound:
            self._reconnect()
            return
        if not self._batch:
            self._batch, self._queue = self._queue, []
            self._batch_deadline = self._deadline
            self._request = self._delivery.request(len(self._batch))
        self._sent_at = time.perf_counter()  # the loop's own clock is too coarse
        self._connection.send(self._waiting(self._request, self._batch_deadline), self._on_replies)

    def _busy_poll(self, sent_at: float) -> None:
        """Keep the loop turning until what was sent then has its reply, if that comes soon."""
        is_waiting = self._sent_at == sent_at and bool(self._batch)
        if is_waiting and self._is_near and time.perf_counter() - sent_at < BUSY_POLL:
            asyncio.get_running_loop().call_soon(self._busy_poll, sent_at)

    @property
    def _next_deadline(self) -> float:
        """That of whoever has waited longest; nobody's when none waits."""
        if self._batch:
            return self._batch_deadline
        return self._deadline if self._queue else math.inf

    def _keep_deadline(self) -> None:
        """Look at the deadline when it comes.

        The timer is not put off with each batch, which would be 2 % of a visit's time.
        """
        self._timer = None
        deadline, loop = self._next_deadline, asyncio.get_running_loop()
        if deadline <= loop.time():
            self._turn_off(TimeoutError())
        elif deadline < math.inf:
            self._timer = loop.call_at(deadline, self._keep_deadline)

    def _waiting(self, request: Request, deadline: float) -> Request:
        """Return a request that has its replicas acknowledge it, if any must.

        :arg deadline: on the loop's clock; replicas have until a little before it.
        """
        if not self._wait:
            return request
        left = deadline - asyncio.get_running_loop().time()
        seconds = left - min(WAIT_MARGIN, left / 4)
        # 0 would wait for ever.
        return request._replace(wait=packed("WAIT", self._wait, max(1, int(seconds * 1000))))

    def _reconnect(self) -> None:
        self._is_sending = True
        self._drop()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            if self._backoff:
                await asyncio.sleep(self._backoff)
            self._backoff = min(2 * self._backoff or BACKOFF, MAX_BACKOFF)
            async with asyncio.timeout(self._timeout):
                self._connection = Connection(*await self._connector.connect())
            self._send()
        except Exception as error:
            # Not only Redis's errors: whatever a server may send, a page is answered.
            self._go_on_after(error)

    def _on_replies(self, replies: list[bytes] | Exception) -> None:
        try:
            if isinstance(replies, Exception):
                raise replies
            numbers = self._numbers(replies, self._request)
        except Exception as error:
            self._go_on_after(error)
            return
        self._backoff = 0.0
        self._note(numbers.fault)
        if self._connection and self._connection.refused:
            refused, self._connection.refused = self._connection.refused, ""
            self._beside.refused(refused)
        self._singles = self._singles + 1 if len(self._batch) == 1 else 0
        waiters, self._batch = [waiter for waiter in self._batch if not waiter.done()], []
        answered, left = waiters[: numbers.number], waiters[numbers.number :]
        if left:
            self._queue[:0] = left
            self._deadline = self._batch_deadline
        if unshown := numbers.number - len(answered):  # some visitors have given up
            self._delivery.not_shown(unshown)
        seconds = time.perf_counter() - self._sent_at
        self._is_near = seconds < BUSY_POLL
        self._observer.counted(len(answered), seconds)
        is_answering = bool(self._answers)
        self._answers.extend(zip(answered, itertools.count(numbers.last - numbers.number + 1)))
        if not is_answering:
            self._answer_some()
        self._is_sending = bool(self._queue)
        if self._is_sending:
            self._send_after(GATHER_TURNS if len(waiters) >= LARGE_BATCH else 1)

    def _send_after(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._send_after, turns - 1)
        else:
            self._send()

    def _answer_some(self) -> None:
        """Answer those that have waited longest; the others after what else there is to do."""
        for _ in range(min(ANSWERS_PER_TURN, len(self._answers))):
            _answer(*self._answers.popleft())
        if self._answers:
            asyncio.get_running_loop().call_soon(self._answer_some)

    def _numbers(self, replies: list[bytes], request: Request) -> Numbers:
        """Return what a request got.

        :raises RedisError: when too few replicas have acknowledged it.
        :raises ValueError: when these are no replies to it.
        """
        reply, *acknowledged = replies
        if acknowledged and (number := integer(acknowledged[0])) < self._wait:
            raise RedisError(f"{number} of {self._wait} replicas acknowledged the visits")
        return self._delivery.numbers(reply, request)

    def _note(self, fault: str) -> None:
        """Log, once, that what goes with the visits cannot be kept; they count all the same."""
        if fault and not self._fault_noted:
            self._fault_noted = True
            log.warning("not all that stands beside the counter can be kept: %s", fault)

    # When something goes wrong.

    def _go_on_after(self, error: Exception) -> None:
        """Send what is under way again where that may help; else turn the counter off."""
        if not self._batch and not self._queue:  # nobody waits
            self._turn_off(error)
        elif self._batch and self._delivery.refused(error, self._request):
            self._request = self._delivery.request(len(self._batch))
            self._send()
        elif self._may_do_elsewhere(error):
            self._reconnect()
        else:
            self._turn_off(error)

    def _may_do_elsewhere(self, error: Exception) -> bool:
        """Tell whether what is under way may be sent again, and another connection may do."""
        if isinstance(error, ResponseError):
            return self._connector.in_cluster and str(error).startswith(REDIRECTIONS)
        is_cut = isinstance(error, CutError) or was_cut(error)
        return is_cut and (not self._batch or self._request.sequence > 0)

    def _turn_off(self, error: Exception) -> None:
        if not self._off:
            self._off_since = (time.monotonic(), self._connector.reason(error))
        self._off = True
        self._say_why_off(error)
        self._end_sending("timeout" if isinstance(error, TimeoutError) else "error")

    def _say_why_off(self, error: Exception) -> None:
        self._reason = self._connector.reason(error)
        if self._reason not in self._reasons and len(self._reasons) < MAX_REASONS:
            log.warning("counter %s: %s", "still off" if self._reasons else "off", self._reason)
            self._reasons.add(self._reason)

    def _end_sending(self, reason: Reason) -> None:
        """Answer all that wait without a number; a reply that still comes is for nobody."""
        self._drop()
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()
        self._is_sending = False
        waiters = self._batch + self._queue
        self._batch, self._queue = [], []
        self._observer.uncounted(len(waiters), reason)
        for waiter in waiters:
            _answer(waiter, None)

    # Looking after the connection.

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connection())

    async def _keep_connection(self) -> None:
        """While off, look for Redis; while on, replace a connection that is none any more."""
        while True:
            await asyncio.sleep(PROBE_EVERY)
            if self._off:
                self._connection = await find(self._look_for_redis, PROBE_EVERY)
                self._off = False
                start, reason = self._off_since
                self._beside.was_away(start, time.monotonic(), reason)
                self._reasons.clear()
                self._backoff = 0.0
                log.info("counter on")
                continue
            self._moved = await self._connector.has_moved()
            if self._is_unsound and not self._is_sending:
                self._reconnect()

    @property
    def _is_unsound(self) -> bool:
        return self._connection is not None and (self._moved or not self._connection.is_sound)

    async def _probe(self) -> Connection:
        """Connect, and ask just what a visit asks, adding nothing.

        With a token, so that no older one can be applied any more: what it got, if nobody was
        shown it, is spare.
        """
        request = self._delivery.request(0)
        try:
            return await self._connect_and_ask(request)
        except Exception as error:
            if self._delivery.refused(error, request):
                return await self._connect_and_ask(self._delivery.request(0))
            raise

    async def _look_for_redis(self) -> Connection:
        try:
            async with asyncio.timeout(STUCK_AFTER):
                return await self._probe()
        except Exception as error:
            if self._off:
                self._say_why_off(error)
            raise

    async def _connect_and_ask(self, request: Request) -> Connection:
        """Open a connection on which Redis answers a request in time.

        A visit may have to wait for the request under way and then for its own, so a Redis
        that takes more than half the deadline to reply cannot serve.
        """
        connection = Connection(*await self._connector.connect())
        try:
            deadline = asyncio.get_running_loop().time() + min(self._timeout, PROBE_TIMEOUT) / 2
            async with asyncio.timeout_at(deadline):
                replies = await connection.ask(self._waiting(request, deadline))
            if self._numbers(replies, request).last == MAX_NUMBER:
                raise OverflowError("the counter is at its 64-bit end")
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        connection, self._connection, self._moved = self._connection, None, False
        if connection is not None:
            connection.close()


def process_key(id: str) -> str:
    """Return the key of what a process keeps."""
    return f"{{{KEY}}}:process:{id}"


def _answer(waiter: Waiter, number: int | None) -> None:
    if not waiter.done():  # its visitor may have given up
        waiter.set_result(number)
