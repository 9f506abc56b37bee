"""Waiting until a deployment is ready to be audited."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tornado.iostream import IOStream

from audit.answer import Answer, NotFriendlyhello, Page, Redirected, Unavailable
from audit.client import Target, kind_of

Answered = TypeVar("Answered")

#: Seconds between two looks.
PAUSE = 0.1

#: Seconds for which a replica that has answered is taken to be there.
REMEMBERED = 10.0


class NotReady(Exception):
    """The time is over; the message is one line that says what is still missing."""


class Readiness:
    """Looks at ``/readyz`` until Redis is up, and visits until as many replicas answer.

    Only a replica that gave a number has answered.

    :arg target: what is to be ready.
    :arg replicas: how many of them are to answer.
    :arg seconds: how long it may take; None for a while.
    :arg timeout: seconds for one look.
    :arg say: told what is missing, at once and each time that it changes.
    """

    def __init__(
        self,
        target: Target,
        replicas: int,
        seconds: float | None,
        timeout: float,
        say: Callable[[str], None],
    ) -> None:
        self._target = target
        self._replicas = replicas
        self._seconds = seconds or 0.0
        self._timeout = timeout
        self._say = say
        self._seen: dict[str, float] = {}  # replica to when it answered

    async def reached(self) -> None:
        """Return once it is ready.

        :raises NotReady: when the time is over before.
        :raises Redirected: when the page is elsewhere.
        :raises RanOut: when this machine can make no more connections.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        told = None
        while (missing := await self._look(loop.time())) is not None:
            if missing != told:
                self._say(f"waiting: {missing}")
                told = missing
            if loop.time() >= end:
                raise NotReady(f"after {self._seconds:g} s still waiting: {missing}")
            await asyncio.sleep(PAUSE)
        if told is not None:
            self._say("ready")

    async def _look(self, now: float) -> str | None:
        """Return what is missing; None when nothing is."""
        try:
            async with asyncio.timeout(self._timeout):
                if (lack := await self._ask(Answer.ask_what_redis_lacks)) is not None:
                    return lack
                replica, number = await self._ask(_visit)
        except Redirected:
            raise
        except NotFriendlyhello as error:
            return f"what answers is not friendlyhello: {error}"
        except Unavailable as error:
            return str(error)
        except ssl.SSLCertVerificationError as error:
            with contextlib.suppress(ValueError):  # a file that is being written
                self._target.trust_anew()
            return kind_of(error)
        except OSError as error:
            return kind_of(error)
        if number is None:
            return f"{replica} counts no visits"
        self._seen[replica] = now
        self._seen = {one: at for one, at in self._seen.items() if now - at < REMEMBERED}
        if len(self._seen) < self._replicas:
            return f"{len(self._seen):,} of {self._replicas:,} replicas have answered"
        return None

    async def _ask(self, question: Callable[[Answer, IOStream], Awaitable[Answered]]) -> Answered:
        """Ask on a connection of its own, as balancers choose a replica per connection."""
        stream = await self._target.connect()
        try:
            return await question(Answer(self._target), stream)
        finally:
            stream.close()


async def _visit(answer: Answer, stream: IOStream) -> Page:
    return await answer.ask(stream, keep_alive=False)
