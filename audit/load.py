"""The load: makes many visits at the same time, and keeps the result of each."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from tornado.iostream import IOStream

from audit.answer import Answer, NotFriendlyhello, Unavailable
from audit.client import Target, kind_of


class Visit(NamedTuple):
    """The result of one visit."""

    at: float
    """When the visit began, in seconds since the load began."""
    seconds: float
    """How long the visit took, in seconds."""
    replica: str | None = None
    """The hostname that answered; None when no replica answered."""
    number: int | None = None
    """The number that the page showed; None when it showed none, or for a failure."""
    failure: str | None = None
    """Why no page answered; None when a page answered."""
    waited: float = 0.0
    """Seconds from when the visit was due until it began, because no connection was free."""

    @property
    def end(self) -> float:
        """When the visit was over, in seconds since the load began."""
        return self.at + self.seconds

    @property
    def latency(self) -> float:
        """Seconds from when the visit was due until it was over: a visitor's wait."""
        return self.waited + self.seconds


class Load:
    """Visits a page, until ``requests`` or ``duration`` is reached, or `stop` is called.

    :arg target: the page to visit, or its URL.
    :arg requests: how many visits to make; None for no limit.
    :arg duration: seconds after which no visit begins; None for no limit.
    :arg concurrency: how many visits are under way at the same time, at most.
    :arg rate: how many visits are due in a second, evenly. A visit begins late if ``concurrency``
        visits are under way when it is due. None: a visit begins whenever one is over.
    :arg timeout: seconds after which a visit fails, connecting included.
    :arg keep_alive: whether to reuse connections. A balancer chooses a replica for each
        connection, so by default each visit opens its own.
    :raises ValueError: for a bad URL.
    """

    def __init__(
        self,
        target: Target | str,
        *,
        requests: int | None = None,
        duration: float | None = None,
        concurrency: int = 16,
        rate: float | None = None,
        timeout: float = 10.0,
        keep_alive: bool = False,
    ) -> None:
        self.visits: list[Visit] = []
        self._target = Target(target) if isinstance(target, str) else target
        self._begun = 0
        self._requests = requests
        self._duration = duration
        self._concurrency = concurrency
        self._rate = rate
        self._timeout = timeout
        self._keep_alive = keep_alive
        self._stopped = asyncio.Event()
        self._clock: Callable[[], float] = lambda: 0.0

    def stop(self) -> None:
        """Begin no more visits. Visits under way go on to their end, because they may count."""
        self._stopped.set()

    @property
    def now(self) -> float:
        """Seconds since the load began; after its end, how long it lasted."""
        return self._clock()

    async def run(self) -> None:
        """Make the visits. Each is appended to ``visits`` when it is over.

        :raises NotFriendlyhello: when something else answers the first visit.
        :raises RanOut: when this machine can make no more connections.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._clock = lambda: loop.time() - began
        try:
            if (waited := await self._take_turn()) is not None:
                stream = await self._visit(None, waited)
                if stream is not None:
                    stream.close()
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._visit_repeatedly())
        except BaseExceptionGroup as ended:
            raise ended.exceptions[0] from None
        finally:
            at_end = self.now
            self._clock = lambda: at_end

    async def _visit_repeatedly(self) -> None:
        stream: IOStream | None = None
        while (waited := await self._take_turn()) is not None:
            stream = await self._visit(stream, waited)
        if stream is not None:
            stream.close()

    async def _take_turn(self) -> float | None:
        """Wait until the next visit is due.

        :return: the seconds for which it has been due already; None when the load is over.
        """
        due = self._begun / self._rate if self._rate else self.now
        start = max(due, self.now)
        if self._begun == self._requests or (
            self._duration is not None and start >= self._duration
        ):
            return None
        self._begun += 1
        # Measured before the sleep: a timer that comes late is not the server's fault.
        waited = start - due
        if start > self.now:
            try:
                async with asyncio.timeout(start - self.now):
                    await self._stopped.wait()
            except TimeoutError:
                pass
        return None if self._stopped.is_set() else waited

    async def _visit(self, stream: IOStream | None, waited: float) -> IOStream | None:
        """Make one visit, and return its connection if the next visit can use it."""
        at = self.now
        answer = Answer(self._target)
        replica, number, failure = None, None, None
        try:
            async with asyncio.timeout(self._timeout):
                if stream is None or stream.closed():
                    stream = await self._target.connect()
                replica, number = await answer.ask(stream, self._keep_alive)
        except NotFriendlyhello as error:
            if not self.visits:  # the first visit tells what is at the URL
                raise
            failure = str(error)
        except Unavailable as error:
            failure = str(error)
        except OSError as error:
            failure = kind_of(error)
        finally:
            if stream is not None and not (self._keep_alive and answer.reusable):
                stream.close()
                stream = None
        self.visits.append(Visit(at, self.now - at, replica, number, failure, waited))
        return stream
