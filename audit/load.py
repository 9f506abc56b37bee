"""The load: visits made many at once, and what became of each."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from tornado.iostream import IOStream

from audit.answer import Answer, NotFriendlyhello, Unavailable
from audit.client import Target, kind_of


class Visit(NamedTuple):
    """What became of one visit."""

    at: float
    """When it began, in seconds since the load did."""
    seconds: float
    """How long it took."""
    replica: str | None = None
    """The hostname that answered; None when none did."""
    number: int | None = None
    """The number that was shown; None for the fallback page and for a failure."""
    failure: str | None = None
    """Why it was not answered by a page; None when it was."""
    waited: float = 0.0
    """Seconds for which it had been due before it began, as no connection was free."""

    @property
    def end(self) -> float:
        """When it was over, in seconds since the load began."""
        return self.at + self.seconds

    @property
    def latency(self) -> float:
        """Seconds until it was over, from when it was due: what a visitor would have seen."""
        return self.waited + self.seconds


class Load:
    """Visits a page until it has done so often enough, or for long enough, or is stopped.

    :arg target: what to visit, or its URL.
    :arg requests: how many visits to make; None for no limit.
    :arg duration: seconds after which no visit begins; None for no limit.
    :arg concurrency: visits under way at once, at most.
    :arg rate: visits that are due in a second, evenly; those that are due while as many as allowed
        are under way begin late. None for as many as are answered.
    :arg timeout: seconds after which a visit has failed, connecting included.
    :arg keep_alive: send one visit after the other on a connection, instead of opening one
        for each, as balancers choose a replica per connection.
    :raises ValueError: for a URL that is no such.
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
        """Begin no further visit; those under way are finished, as they may have counted."""
        self._stopped.set()

    @property
    def now(self) -> float:
        """Seconds since the load began, until it ended."""
        return self._clock()

    async def run(self) -> None:
        """Make the visits; each is appended to ``visits`` when it is over.

        :raises NotFriendlyhello: when the first visit is answered by something else.
        :raises RanOut: when this machine can make no more connections.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._clock = lambda: loop.time() - began
        try:
            if (waited := await self._take_turn()) is not None:
                stream = await self._visit(None, waited, first=True)
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
        """Wait for the time to begin a visit.

        :return: the seconds for which it has been due; None when there is none to begin.
        """
        due = self._begun / self._rate if self._rate else self.now
        start = max(due, self.now)
        if self._begun == self._requests or (
            self._duration is not None and start >= self._duration
        ):
            return None
        self._begun += 1
        # How late a timer goes off is no wait for the server.
        waited = start - due
        if start > self.now:
            try:
                async with asyncio.timeout(start - self.now):
                    await self._stopped.wait()
            except TimeoutError:
                pass
        return None if self._stopped.is_set() else waited

    async def _visit(
        self, stream: IOStream | None, waited: float, first: bool = False
    ) -> IOStream | None:
        """Make one visit, and return its connection if another can follow on it."""
        at = self.now
        answer = Answer(self._target)
        replica, number, failure = None, None, None
        try:
            async with asyncio.timeout(self._timeout):
                if stream is None or stream.closed():
                    stream = await self._target.connect()
                replica, number = await answer.ask(stream, self._keep_alive)
        except NotFriendlyhello as error:
            if first:
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
