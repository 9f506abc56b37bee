"""Waits until a deployment is ready for the audit."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from audit.answer import Answer, NotFriendlyhello, Redirected, Unavailable
from audit.client import Target, kind_of

#: Seconds between two looks.
PAUSE = 0.1

#: Seconds after its answer for which a replica counts as one that answers.
REMEMBERED = 10.0


class NotReady(Exception):
    """The time is over; the message is one line that says what is still missing."""


async def until_ready(
    target: Target, replicas: int, seconds: float, per_look: float, say: Callable[[str], None]
) -> None:
    """Ask ``/readyz`` until Redis is up, and visit until enough replicas answer with a number.

    :arg target: the deployment's page.
    :arg replicas: how many replicas must answer.
    :arg seconds: how long to wait.
    :arg per_look: seconds for one look.
    :arg say: called with a line that says what is missing, at first and whenever it changes.
    :raises NotReady: when the time is over.
    :raises Redirected: when the page answers with a redirect.
    :raises RanOut: when this machine can make no more connections.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    seen: dict[str, float] = {}
    told = None
    while (missing := await _missing(target, replicas, per_look, seen)) is not None:
        if missing != told:
            say(f"waiting: {missing}")
            told = missing
        if loop.time() >= end:
            raise NotReady(f"after {seconds:g} s still waiting: {missing}")
        await asyncio.sleep(PAUSE)
    if told is not None:
        say("ready")


async def _missing(
    target: Target, replicas: int, per_look: float, seen: dict[str, float]
) -> str | None:
    """Look once, and return what is missing; None when nothing is missing.

    :arg seen: from replica to the time of the last look that it answered with a number.
    """
    now = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(per_look):
            with contextlib.closing(await target.connect()) as stream:
                if (lack := await Answer(target).ask_what_redis_lacks(stream)) is not None:
                    return lack
            # On a new connection, because a balancer chooses a replica for each connection.
            with contextlib.closing(await target.connect()) as stream:
                replica, number = await Answer(target).ask(stream, keep_alive=False)
    except Redirected:
        raise
    except NotFriendlyhello as error:
        return f"what answers is not friendlyhello: {error}"
    except Unavailable as error:
        return str(error)
    except ssl.SSLCertVerificationError as error:
        with contextlib.suppress(ValueError):  # somebody may be writing the file now
            target.trust_anew()
        return kind_of(error)
    except OSError as error:
        return kind_of(error)
    if number is None:
        return f"{replica} counts no visits"
    seen[replica] = now
    answering = sum(now - at < REMEMBERED for at in seen.values())
    if answering < replicas:
        return f"{answering:,} of {replicas:,} replicas have answered"
    return None
