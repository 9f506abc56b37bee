"""Visits in batches: what waits in the queue is counted by the next request.

One batch is under way at a time. Numbers are given in the order in which visits came; a number
whose visitor has gone goes to the next visitor, or back.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence

from counter.link import Link
from counter.roles import Observer, Reason
from counter.tokens import Numbers

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

#: A visit in the queue: its number, or None when there will be none.
Waiter = asyncio.Future[int | None]


class PlainNumber(int):
    """A number that a plain command gave. It cannot be given back."""


class Batches:
    """The queue, the batch under way, and the answers.

    :arg link: the way to Redis; it asks for batches, and answers them.
    :arg timeout: seconds from a visit's arrival to its number.
    :arg max_waiting: visits that may wait at once; those past it get no number.
    :arg observer: is told how many visits get a number, how fast, and how many do not.
    """

    def __init__(
        self, link: Link, *, timeout: float, max_waiting: float, observer: Observer
    ) -> None:
        self._link = link
        link.asker = self
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._observer = observer
        self._queue: list[Waiter] = []
        self._batch: list[Waiter] = []
        self._deadline = 0.0  # of the first visit in the queue, so of all of them
        self._batch_deadline = 0.0
        self._is_sending = False  # or is about to
        self._singles = 0  # batches of one visit, one after the other
        self._timer: asyncio.TimerHandle | None = None  # ends what waits too long
        self._answers: deque[Waiter] = deque()  # who is to get the numbers below
        self._numbers: deque[int] = deque()  # not fewer

    def add(self) -> Waiter | None:
        """Let a visit wait for its number; None when it may not."""
        if self._link.is_off or len(self._queue) >= self._max_waiting:
            self._observer.uncounted(1, "off" if self._link.is_off else "crowded")
            return None
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        if not self._queue:
            self._deadline = loop.time() + self._timeout
        self._queue.append(waiter)
        if self._timer is None:
            self._watch_deadline()
        if not self._is_sending:
            self._is_sending = True
            if self._singles > ALONE:
                self._link.send(awake=True)
            else:
                loop.call_soon(self._link.send)  # those that arrive in this turn go along
        return waiter

    def _watch_deadline(self) -> None:
        """Look at the deadline when it comes.

        The timer is not put off with each batch, which would be 2 % of a visit's time.
        """
        self._timer = None
        loop = asyncio.get_running_loop()
        deadline = self._batch_deadline if self._batch else self._deadline
        if not self.are_waiting:
            return
        if deadline <= loop.time():
            self._link.turn_off(TimeoutError())
        else:
            self._timer = loop.call_at(deadline, self._watch_deadline)

    # What the link asks and answers.

    @property
    def are_waiting(self) -> bool:
        """Whether visits wait for their number."""
        return bool(self._batch or self._queue)

    def take(self) -> tuple[int, float]:
        """Begin the next batch.

        :return: its visits, none when none waits, and their deadline, on the loop's clock.
        """
        assert not self._batch
        self._batch, self._queue = self._queue, []
        self._batch_deadline = self._deadline
        self._is_sending = bool(self._batch)
        return len(self._batch), self._batch_deadline

    def counted(self, numbers: Sequence[Numbers], seconds: float, exactly_once: bool) -> None:
        """Answer the batch, and send the next one.

        :arg numbers: as many as the batch has visits.
        :arg seconds: from sending the request to its reply.
        :arg exactly_once: whether a number that nobody is shown can be given back.
        """
        size = len(self._batch)
        self._singles = self._singles + 1 if size == 1 else 0
        self._observer.counted(size, seconds)
        is_answering = bool(self._answers)
        self._answers.extend(self._batch)
        got = itertools.chain.from_iterable(numbers)
        self._numbers.extend(got if exactly_once else map(PlainNumber, got))
        self._batch = []
        if not is_answering:
            self._answer_some()
        self._is_sending = bool(self._queue)
        if self._is_sending:
            self._send_after(GATHER_TURNS if size >= LARGE_BATCH else 1)

    def uncounted(self, reason: Reason) -> None:
        """Answer all that wait without a number."""
        self._is_sending = False
        waiters = self._batch + self._queue
        self._batch, self._queue = [], []
        self._observer.uncounted(len(waiters), reason)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _send_after(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._send_after, turns - 1)
        else:
            self._link.send()

    # Answers.

    def _answer_some(self, most: int = ANSWERS_PER_TURN) -> None:
        """Answer those that have waited longest; the others after what else there is to do."""
        answers, numbers = self._answers, self._numbers
        assert len(numbers) >= len(answers)
        for _ in range(min(most, len(answers))):
            waiter = answers.popleft()
            if not waiter.done():  # its visitor may have given up
                waiter.set_result(numbers.popleft())
        if answers:
            asyncio.get_running_loop().call_soon(self._answer_some)
        while numbers and not answers:
            self.give_back(numbers.popleft())

    def give_back(self, number: int) -> None:
        """Leave a number that nobody was shown to the next visit."""
        if not isinstance(number, PlainNumber):
            self._link.give_back(range(number, number + 1))

    def close(self) -> None:
        """Answer all: with their numbers, and else without."""
        self._answer_some(len(self._answers))
        assert not self._answers
        assert not self._numbers
        if self._timer is not None:
            self._timer.cancel()
