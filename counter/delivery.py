"""Which way visits are counted: exactly once by tokens, or at most once by plain commands.

Where Redis refuses the script, plain commands count. Redis may have no scripts, an access list may
forbid them, or a key of the script may have a wrong type.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence

from redis.exceptions import RedisError, ResponseError

from counter.connection import Request, integer, packed
from counter.tokens import Numbers, Tokens

#: Seconds after a refusal of the script until the server tries the script again.
REFUSED_FOR = 5.0

#: Words in Redis's errors which mean that no command can count now, or that another node counts.
_STATES = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|MISCONF|OOM|BUSY|CLUSTERDOWN|NOREPLICAS|NOAUTH|WRONGPASS|"
    r"DENIED|MOVED|ASK)\b|max number of clients"
)

#: Seconds before the deadline at which WAIT ends by itself, and says how many replicas have
#: acknowledged. Redis looks at the clock ten times a second.
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
        self._refusal = ""  # the last refusal; empty when the script runs again
        self._refused_at = 0.0
        self._has_said_dropped = False
        self.exactly_once = True
        """Whether a token, not a plain command, counted the last visits."""

    @property
    def refusal(self) -> str:
        """How Redis refused the script, while visits count at most once; else empty."""
        return "" if self.exactly_once else self._refusal

    @property
    def settled(self) -> bool:
        """Whether each number that Redis gave this process was shown, or is spare."""
        return self.tokens.settled

    def request(self, visits: int) -> Request:
        """Return a request: with a token, or while Redis refuses the script, a plain command.

        :arg visits: how many numbers to ask for; it may be 0.
        """
        if not self._refusal or time.monotonic() > self._refused_at + REFUSED_FOR:
            return self.tokens.request(visits)
        return self.plain_request(visits)

    def plain_request(self, visits: int) -> Request:
        """Return a request without a token, which the server may send only once.

        :arg visits: how much to raise the counter by (https://redis.io/commands/incrby).
        """
        one = ("INCR", self._counter) if visits == 1 else ("INCRBY", self._counter, visits)
        return Request(packed(*one), visits=visits)

    def waiting(self, request: Request, deadline: float) -> Request:
        """Return the request, with a WAIT after it when replicas must acknowledge it.

        :arg deadline: in seconds of the loop's clock. WAIT ends a little before the deadline.
        """
        if not self._wait:
            return request
        seconds = deadline - asyncio.get_running_loop().time()
        seconds -= min(WAIT_MARGIN, seconds / 4)
        # WAIT with 0 would wait for ever.
        return request._replace(wait=packed("WAIT", self._wait, max(1, int(seconds * 1000))))

    def refused(self, error: Exception, request: Request) -> bool:
        """Tell whether Redis refused the token of a request.

        The token then counted nothing, and the next request is a plain command.

        :arg error: what came in place of a reply.
        """
        if not is_refusal(error):
            return False
        if request.sequence:
            self.tokens.abandon()
            self.refuse(str(error) or "without a word")
        elif self.exactly_once:
            self._refusal = ""  # no command counts, so it was no refusal of the script
        return request.sequence > 0

    def refuse(self, refusal: str) -> None:
        """Use plain commands for a while.

        :arg refusal: how Redis refused the script.
        """
        self._refusal, self._refused_at = refusal, time.monotonic()

    def numbers(self, replies: Sequence[bytes], request: Request) -> Sequence[Numbers]:
        """Return the numbers that a request got, as many as it asked for.

        :arg replies: the reply of the command that counts, and of WAIT if the request has one.
        :raises SupersededError: when Redis applied a newer token before.
        :raises RedisError: when too few replicas have acknowledged the request.
        :raises ValueError: when the replies do not answer the request.
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
    """Tell whether Redis has refused this command, and may still run another command."""
    return isinstance(error, ResponseError) and not _STATES.search(str(error))
