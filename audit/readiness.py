"""Waits until a deployment is ready for the audit."""

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

#: Seconds after its answer for which a replica counts as one that answers.
REMEMBERED = 10.0


class NotReady(Exception):
    """The time is over; the message is one line that says what is still missing."""


class Readiness:
    """Asks ``/readyz`` until Redis is up, and visits until enough replicas answer.

    Only an answer with a number counts.

    :arg target: the deployment's page.
    :arg replicas: how many replicas must answer.
    :arg seconds: how long to wait; None for a single look.
    :arg timeout: seconds for one look.
    :arg say: called with a line that says what is missing, at first and whenever it changes.
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
        self._seen: dict[str, float] = {}  # from replica to the time of its last answer

    async def reached(self) -> None:
        """Return when the deployment is ready.

        :raises NotReady: when the time is over.
        :raises Redirected: when the page answers with a redirect.
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
        """Return what is missing; None when nothing is missing."""
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
            with contextlib.suppress(ValueError):  # somebody may be writing the file now
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
        """Ask on a new connection, because a balancer chooses a replica for each connection."""
        stream = await self._target.connect()
        try:
            return await question(Answer(self._target), stream)
        finally:
            stream.close()


async def _visit(answer: Answer, stream: IOStream) -> Page:
    return await answer.ask(stream, keep_alive=False)
