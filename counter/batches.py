"""Visits in batches: the next request counts all visits that wait in the queue.

One batch is under way at a time. Visits get their numbers in the order in which they came. When a
visitor has gone, its number goes to the next visitor, or back to Redis.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence

from counter.link import Link
from counter.roles import Observer, Reason
from counter.tokens import Numbers

#: How many visits get their answers in one turn of the loop. Then the loop reads requests. If it
#: answered hundreds of visits in one turn, their clients would all ask again together. One command
#: would count all these visits, and until its reply the server would have nothing to do.
ANSWERS_PER_TURN = 128

#: How many visits a large batch has, and how many turns of the loop pass from its reply to the next
#: batch. So clients which ask again at once join the next batch, and there are fewer commands.
#: After a smaller batch one turn passes, because few clients ask again at once.
LARGE_BATCH, GATHER_TURNS = 10, 3

#: After more batches of one visit in a row, the server sends the next visit at once, without
#: waiting for others that arrive in the same turn of the loop.
ALONE = 8

#: A visit in the queue: its number, or None when there will be none.
Waiter = asyncio.Future[int | None]


class PlainNumber(int):
    """A number that a plain command gave. It cannot be given back."""


class Batches:
    """The queue, the batch under way, and the answers.

    :arg link: the link to Redis. It takes each batch, and brings the numbers.
    :arg timeout: seconds from a visit's arrival to its number.
    :arg max_waiting: visits that may wait at the same time. Further visits get no number.
    :arg observer: hears how many visits get a number, how fast, and how many get none.
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
        self._deadline = 0.0  # of the first visit in the queue; it holds for the whole queue
        self._batch_deadline = 0.0
        self._is_sending = False  # a request is under way, or about to be sent
        self._singles = 0  # how many batches in a row had one visit
        self._timer: asyncio.TimerHandle | None = None  # runs out at a deadline
        self._answers: deque[Waiter] = deque()  # the visits that get the numbers below
        self._numbers: deque[int] = deque()  # at least as many as those visits

    def add(self) -> Waiter | None:
        """Put a visit into the queue.

        :return: the future of its number; None when the counter is off, or the queue is full.
        """
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
                loop.call_soon(self._link.send)  # visits that arrive in this turn join the batch
        return waiter

    def _watch_deadline(self) -> None:
        """Turn the counter off if the deadline has passed; else set the timer to the deadline.

        To move the timer with each batch would cost more.
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

    # The link calls these.

    @property
    def are_waiting(self) -> bool:
        """Whether visits wait for their number."""
        return bool(self._batch or self._queue)

    def take(self) -> tuple[int, float]:
        """Begin the next batch.

        :return: how many visits it has (0 when none waits), and their deadline, in seconds of the
            loop's clock.
        """
        assert not self._batch
        self._batch, self._queue = self._queue, []
        self._batch_deadline = self._deadline
        self._is_sending = bool(self._batch)
        return len(self._batch), self._batch_deadline

    def counted(self, numbers: Sequence[Numbers], seconds: float, exactly_once: bool) -> None:
        """Answer the batch, and send the next one.

        :arg numbers: one for each visit of the batch.
        :arg seconds: from sending the request to its reply.
        :arg exactly_once: whether a number that is not shown can be given back.
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
        """Answer all visits that wait. They get no number."""
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
        """Answer the visits that have waited longest. The others get their answers in later turns.

        :arg most: how many visits to answer now.
        """
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
        """Give a number back, because it was not shown. The next visit gets it."""
        if not isinstance(number, PlainNumber):
            self._link.give_back(range(number, number + 1))

    def close(self) -> None:
        """Answer all visits whose numbers have come."""
        self._answer_some(len(self._answers))
        assert not self._answers
        assert not self._numbers
        if self._timer is not None:
            self._timer.cancel()
