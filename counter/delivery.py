"""What is sent to have visits counted, and what comes back: exactly once, or at most once.

Exactly once takes a token: this process, and a sequence number. `token.lua` applies it once, and
returns what it gave, however often it comes. A process has one under way at a time, so Redis keeps
its last one only, in ``{counter}:process:ID``: its sequence number, its last number, how many it
got. Numbers that were counted, and shown to nobody, are in ``{counter}:spare`` for whoever comes
next. Redis drops both a day after the last visit.

The script is sent by its digest (https://redis.io/docs/latest/commands/evalsha/), and in full to
a Redis that does not know it.
"""

import functools
import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from redis.exceptions import ResponseError

from counter.connection import Request, bulk, integer, packed, unexpected, within_64_bits

#: How a Redis begins to say that it does not run the script: it may not, it has none, or not now,
#: as a part of the keys is on its way to another node. A plain command may do.
REFUSALS = ("NOPERM", "unknown command", "TRYAGAIN")

#: Seconds after which a Redis that has refused the script is asked to run it again.
REFUSED_FOR = 5.0

_SCRIPT = Path(__file__).with_name("token.lua").read_bytes()
_DIGEST = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()

#: What the script answers, but for a mere number: the token that Redis keeps, 0 for none, its last
#: number, how many it got, and what went wrong beside.
_STATE = re.compile(rb"\+([0-9]{1,16}) (-?[0-9]{1,19}) ([0-9]{1,9})(?: (.*))?", re.DOTALL)


log = logging.getLogger("friendlyhello.visits")


class Numbers(NamedTuple):
    """Consecutive numbers that a request got."""

    last: int
    """The last one."""
    number: int
    """How many; fewer than were asked for when more requests are needed."""
    fault: str = ""
    """What Redis refused beside."""
    kept: bool = True
    """Whether Redis would give the same numbers again."""


class Delivery:
    """Makes the requests that count, and reads their replies.

    A visit counts exactly once; at most once where Redis refuses the script.

    :arg counter: the counter's key.
    :arg process_id: tells this process from all others.
    :arg beside: returns what goes after a request; see `counter.Beside`.
    """

    def __init__(
        self,
        counter: str,
        process_id: Callable[[], str],
        beside: Callable[[str, int, int, bool], Sequence[bytes]] = lambda *_: (),
    ) -> None:
        self.shown = 0
        """Numbers shown so far."""
        self._key = functools.cache(lambda: f"{{{counter}}}:process:{process_id()}")
        self._beside = beside
        self._tokens = _Tokens(counter, self._key)
        self._plain = _PlainCommands(counter)
        self._refused_at: float | None = None

    @property
    def exactly_once(self) -> bool:
        """Whether Redis runs the script, as far as is known."""
        return self._refused_at is None

    @property
    def settled(self) -> bool:
        """Whether Redis has no numbers for this process that nobody was shown."""
        return self._tokens.settled

    def request(self, visits: int) -> Request:
        """Return a request, with a token where Redis takes one.

        :arg visits: how many numbers to ask for; none with 0.
        """
        scripts = self._refused_at is None or time.monotonic() > self._refused_at + REFUSED_FOR
        beside = self._beside(self._key(), self.shown, visits, scripts)
        if scripts:
            request = self._tokens.request(visits, self.shown, bool(beside))
        else:
            request = self._plain.request(visits)
        return request._replace(beside=beside) if beside else request

    def settlement(self) -> Request:
        """Return a request that makes spare numbers of all that Redis has for this process."""
        return self._tokens.request(0, self.shown)

    def refused(self, error: Exception, request: Request) -> bool:
        """Tell whether a request that failed has counted nothing and a plain one may; it is next.

        :arg error: what came instead of a reply.
        """
        is_refusal = isinstance(error, ResponseError) and str(error).startswith(REFUSALS)
        if is_refusal and request.sequence:
            self._note_refusal(str(error))
            return True
        return False

    def numbers(self, reply: bytes, request: Request) -> Numbers:
        """Return the numbers that a request got.

        :arg reply: that of its command.
        :raises ValueError: when it is none.
        """
        way = self._tokens if request.sequence else self._plain
        numbers = way.numbers(reply, request)
        self.shown += numbers.number
        if not numbers.kept:
            self._note_refusal(numbers.fault)
            return numbers._replace(fault="")
        if self._refused_at is not None and request.sequence and request.visits:
            self._refused_at = None
            log.info("counting exactly once")
        return numbers

    def not_shown(self, number: int) -> None:
        """Take back the last of the numbers that a request has just got."""
        self.shown -= number
        self._tokens.not_shown(number)

    def _note_refusal(self, refusal: str) -> None:
        if self._refused_at is None:
            log.warning("counting at most once, as Redis refuses EVALSHA: %s", refusal)
        self._refused_at = time.monotonic()


class _Form(NamedTuple):
    """How a request with a token begins."""

    by_digest: bytes
    in_full: bytes
    end: bytes = b""
    """Its last arguments."""

    @classmethod
    def of(cls, keys: Sequence[str], arguments: int, end: Sequence[str] = ()) -> "_Form":
        """Return the form with so many arguments before the last ones."""
        head = b"*%d\r\n" % (3 + len(keys) + arguments + len(end))
        words = [bulk(str(word).encode()) for word in (len(keys), *keys)]
        by_digest = (head, bulk(b"EVALSHA"), bulk(_DIGEST.encode()), *words)
        in_full = (head, bulk(b"EVAL"), bulk(_SCRIPT), *words)
        last = b"".join(bulk(word.encode(errors="surrogateescape")) for word in end)
        return cls(b"".join(by_digest), b"".join(in_full), last)


class _Tokens:
    def __init__(self, counter: str, key: Callable[[], str]) -> None:
        self._counter = counter
        self._key = key
        self._sequence = 0  # of the last token
        self._asked = 0  # of the last one that asked for numbers
        self._known = 0  # of the newest token whose numbers this process knows
        self._unshown = 0  # how many of that one's last numbers nobody was shown

    @property
    def settled(self) -> bool:
        return self._known >= self._asked and not self._unshown

    def request(self, visits: int, shown: int, is_due: bool = False) -> Request:
        """Return a request with a new token, by which Redis settles the older ones.

        An older one can no longer be applied then. Numbers that it got, and that nobody was shown,
        become spare ones, which are given first.
        """
        is_usual = self.settled and not is_due
        self._sequence += 1
        if visits:
            self._asked = self._sequence
        word = b"%d %d %d" % (self._sequence, visits, shown)
        if is_usual:
            by_digest, in_full, _ = self._usual
            arguments = bulk(word)
        else:
            by_digest, in_full, end = self._full
            now_and_then = b"%d %d" % (self._known, self._unshown)
            arguments = bulk(word) + bulk(now_and_then) + end
        return Request(by_digest, arguments, in_full, visits=visits, sequence=self._sequence)

    @functools.cached_property
    def _keys(self) -> tuple[str, ...]:
        return (self._counter, self._key(), f"{{{self._counter}}}:spare")

    @functools.cached_property
    def _usual(self) -> _Form:
        return _Form.of(self._keys, 1)

    @functools.cached_property
    def _full(self) -> _Form:
        return _Form.of(self._keys, 2)

    def numbers(self, reply: bytes, request: Request) -> Numbers:
        if reply[:1] == b":":  # as usual
            numbers = Numbers(integer(reply), request.visits)
        else:
            numbers = self._stated(reply, request)
        if request.sequence > self._known:
            self._known, self._unshown = request.sequence, 0
        return numbers

    def _stated(self, reply: bytes, request: Request) -> Numbers:
        if (match := _STATE.fullmatch(reply)) is None:
            raise unexpected(reply)
        sequence, last, number = int(match[1]), int(match[2]), int(match[3])
        if sequence not in (0, request.sequence) or not _fits(number, request.visits):
            raise unexpected(reply)
        fault = (match[4] or b"").decode(errors="replace")
        return Numbers(within_64_bits(last), number, fault, kept=sequence > 0)

    def not_shown(self, number: int) -> None:
        self._unshown = number


class _PlainCommands:
    def __init__(self, counter: str) -> None:
        self._counter = counter

    def request(self, visits: int) -> Request:
        """Return what raises the counter (https://redis.io/commands/incrby); to be sent once."""
        one = ("INCR", self._counter) if visits == 1 else ("INCRBY", self._counter, visits)
        return Request(packed(*one), visits=visits)

    def numbers(self, reply: bytes, request: Request) -> Numbers:
        return Numbers(integer(reply), request.visits)


def _fits(number: int, visits: int) -> bool:
    """Tell whether so many numbers may be given to so many visits."""
    return 0 < number <= visits if visits else number == 0
