"""Which way visits are counted: exactly once by tokens, or at most once by plain commands.

Plain commands serve where Redis refuses the script: it may have none, or an access list may forbid
it, or a key of the script's may have a wrong type.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence

from redis.exceptions import RedisError, ResponseError

from counter.connection import Request, integer, packed
from counter.tokens import Numbers, Tokens

#: Seconds after which a Redis that has refused the script is asked to run it again.
REFUSED_FOR = 5.0

#: How Redis says that it cannot count now, by whatever command; or that another node can.
_STATES = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|MISCONF|OOM|BUSY|CLUSTERDOWN|NOREPLICAS|NOAUTH|WRONGPASS|"
    r"DENIED|MOVED|ASK)\b|max number of clients"
)

#: Seconds before the deadline at which WAIT ends by itself, and says how many acknowledged. Redis
#: looks at the clock ten times a second.
WAIT_MARGIN = 0.15

log = logging.getLogger("friendlyhello.visits")


class Delivery:
    """Makes the requests that count, and reads their replies.

    :arg counter: the counter's key.
    :arg wait: replicas that must have acknowledged a number before it is shown
        (https://redis.io/commands/wait).
    """

    def __init__(self, counter: str, wait: int = 0) -> None:
        self.tokens = Tokens(counter)
        self._counter = counter
        self._wait = wait
        self._refusal = ""  # the last one, until the script runs again
        self._refused_at = 0.0
        self._has_said_dropped = False
        self.exactly_once = True
        """Whether a token counted last; else a plain command did."""

    @property
    def refusal(self) -> str:
        """How Redis refused the script, while visits count at most once; else empty."""
        return "" if self.exactly_once else self._refusal

    @property
    def settled(self) -> bool:
        """Whether Redis has no numbers for this process that nobody was shown."""
        return self.tokens.settled

    def request(self, visits: int) -> Request:
        """Return a request, with a token where Redis takes one.

        :arg visits: how many numbers to ask for; none with 0.
        """
        if not self._refusal or time.monotonic() > self._refused_at + REFUSED_FOR:
            return self.tokens.request(visits)
        return self.plain_request(visits)

    def plain_request(self, visits: int) -> Request:
        """Return what raises the counter (https://redis.io/commands/incrby); to be sent once."""
        one = ("INCR", self._counter) if visits == 1 else ("INCRBY", self._counter, visits)
        return Request(packed(*one), visits=visits)

    def waiting(self, request: Request, deadline: float) -> Request:
        """Return a request that has its replicas acknowledge it, if any must.

        :arg deadline: on the loop's clock; replicas have until a little before it.
        """
        if not self._wait:
            return request
        seconds = deadline - asyncio.get_running_loop().time()
        seconds -= min(WAIT_MARGIN, seconds / 4)
        # 0 would wait for ever.
        return request._replace(wait=packed("WAIT", self._wait, max(1, int(seconds * 1000))))

    def refused(self, error: Exception, request: Request) -> bool:
        """Tell whether Redis refused a token, which has counted nothing; a plain command is next.

        :arg error: what came instead of a reply.
        """
        if not is_refusal(error):
            return False
        if request.sequence:
            self.tokens.abandon()
            self.refuse(str(error) or "without a word")
        elif self.exactly_once:
            self._refusal = ""  # it was no refusal of the script: no command counts
        return request.sequence > 0

    def refuse(self, refusal: str) -> None:
        """Use plain commands for a while.

        :arg refusal: why.
        """
        self._refusal, self._refused_at = refusal, time.monotonic()

    def numbers(self, replies: Sequence[bytes], request: Request) -> Sequence[Numbers]:
        """Return the numbers that a request got, as many as it asked for.

        :arg replies: that of its command, and that of WAIT where it waits.
        :raises SupersededError: when a newer token was applied before.
        :raises RedisError: when too few replicas have acknowledged it.
        :raises ValueError: when these are no replies to it.
        """
        reply, *acknowledged = replies
        if acknowledged and (number := integer(acknowledged[0])) < self._wait:
            raise RedisError(f"{number} of {self._wait} replicas acknowledged the visits")
        if not request.sequence:
            last = integer(reply)
            self.tokens.shown += request.visits
            if self._refusal:
                self._note(exactly_once=False)
            return [range(last - request.visits + 1, last + 1)]
        numbers = self.tokens.numbers(reply, request)
        if request.visits:
            self._refusal = ""
            self._note(exactly_once=True)
        if self.tokens.has_dropped and not self._has_said_dropped:
            self._has_said_dropped = True
            log.warning("spare numbers that cannot be read were dropped")
        return numbers

    def _note(self, exactly_once: bool) -> None:
        if exactly_once != self.exactly_once:
            self.exactly_once = exactly_once
            if exactly_once:
                log.info("counting exactly once")
            else:
                why = self._refusal
                log.warning("counting at most once, as Redis refuses the script: %s", why)


def is_refusal(error: Exception) -> bool:
    """Tell whether Redis has refused a command, and may run another one."""
    return isinstance(error, ResponseError) and not _STATES.search(str(error))
