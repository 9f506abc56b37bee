"""Tokens: the server sends one with each batch, and `token.lua` applies each token once.

A token has the id of the process and a sequence number. Redis applies a token once, and answers the
numbers that the token got, however often the token comes. A process has one batch under way at a
time, so Redis keeps only the newest token of each process.

``docs/counting.md`` shows the life of a token.
"""

import functools
import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from redis.exceptions import RedisError

from counter.connection import Request, bulk, integer, unexpected, within_64_bits

#: The counter's key.
KEY = "counter"

SCRIPT = Path(__file__).with_name("token.lua").read_bytes()

#: The digest by which Redis knows the script (https://redis.io/docs/latest/commands/evalsha/).
DIGEST = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()

#: Consecutive numbers.
Numbers = range

#: The script's answer, if it is not one number alone.
_STATE = re.compile(rb"\+([0-9]{1,16})((?: -?[0-9]{1,19} [0-9]{1,9})+)( dropped)?")


class SupersededError(RedisError):
    """Redis applied a newer token of the process before this one. So this token gets no number."""


def process_key(process_id: str, counter: str = KEY) -> str:
    """Return the key of a process's record, in the slot of the counter's key."""
    return f"{{{counter}}}:process:{process_id}"


def spares_key(counter: str) -> str:
    """Return the key of the spare numbers: they were counted, and not shown."""
    return f"{{{counter}}}:spares"


class Tokens:
    """Makes the tokens of one process, and reads their replies.

    :arg counter: the counter's key.
    """

    def __init__(self, counter: str) -> None:
        self._counter = counter
        self._sequence = 0  # of the newest token
        self._asked = 0  # of the newest token that asked for numbers
        self._known = 0  # of the newest token whose reply is known
        self._renewing = 1  # tokens prolong the record until this one, or a newer one, is known
        self._awaited = 0  # of the token whose numbers visits wait for; 0 when no visit waits
        self._unshown: list[Numbers] = []  # not shown, and not yet given back by a token
        self._given_back: list[Numbers] = []  # given back by each token since the known one
        self.shown = 0
        """How many numbers were shown."""
        self.has_dropped = False
        """Whether Redis had spare numbers that nobody can read."""

    @functools.cached_property
    def process_id(self) -> str:
        """The random id of this process. It is made at its first use, after the process forks."""
        return secrets.token_urlsafe(12)

    @functools.cached_property
    def key(self) -> str:
        """The key of this process's record."""
        return process_key(self.process_id, self._counter)

    @property
    def settled(self) -> bool:
        """Whether each number that Redis gave this process was shown, or is spare."""
        return self._known >= self._asked and not self._unshown and not self._given_back

    def request(self, visits: int) -> Request:
        """Return a request with a new token. Redis applies no older token after this one.

        :arg visits: how many numbers to ask for; with 0 the token only settles the older tokens.
        """
        assert visits >= 0
        assert not self._awaited, "it would make spare numbers of what visits still wait for"
        # A token whose reply is not known may have given numbers back. Later tokens name the same.
        if self._unshown and self._sequence == self._known:
            self._given_back, self._unshown = _joined(self._unshown), []
        self._sequence += 1
        if visits:
            self._asked = self._awaited = self._sequence
        renews = self._known < self._renewing
        word = b"%d %d %d %d %d" % (self._sequence, visits, self.shown, self._known, renews)
        for one in self._given_back:
            word += b" %d %d" % (one[-1], len(one))
        by_digest, in_full = self._commands
        return Request(by_digest, bulk(word), in_full, (), b"", visits, self._sequence)

    @functools.cached_property
    def _commands(self) -> tuple[bytes, bytes]:
        keys = (self._counter, self.key, spares_key(self._counter))
        words = [b"3", *(key.encode() for key in keys)]
        ways = ((b"EVALSHA", DIGEST.encode()), (b"EVAL", SCRIPT))
        by_digest, in_full = (b"*7\r\n" + b"".join(map(bulk, (*way, *words))) for way in ways)
        return by_digest, in_full

    def numbers(self, reply: bytes, request: Request) -> Sequence[Numbers]:
        """Return the numbers that a request got, as many as it asked for.

        :raises SupersededError: when Redis applied a newer token before.
        :raises ValueError: when the reply does not answer the request.
        """
        got = self._got(reply, request)
        # A newer token may have made these numbers spare.
        assert not request.visits or request.sequence == self._awaited == self._sequence
        if request.sequence > self._known:
            self._known, self._awaited, self._given_back = request.sequence, 0, []
        self.shown += request.visits
        return got

    def _got(self, reply: bytes, request: Request) -> list[Numbers]:
        if reply[:1] == b":":
            last = integer(reply)
            return [range(last - request.visits + 1, last + 1)]
        if (match := _STATE.fullmatch(reply)) is None:
            raise unexpected(reply)
        if request.sequence < int(match[1]) <= self._sequence:
            raise SupersededError("a newer token was applied before")
        words = [within_64_bits(int(word)) for word in match[2].split()]
        got = [
            range(last - count + 1, last + 1)
            for last, count in zip(words[::2], words[1::2], strict=True)
        ]
        if int(match[1]) != request.sequence or sum(map(len, got)) != request.visits:
            raise unexpected(reply)
        self.has_dropped |= match[3] is not None
        return got

    def renew(self) -> None:
        """Make the next tokens prolong the record in Redis, until one is known to have done so."""
        self._renewing = self._sequence + 1

    def abandon(self) -> None:
        """Give up the newest token. No visit waits for its numbers; they become spare."""
        self._awaited = 0

    def give_back(self, numbers: Numbers) -> None:
        """Give numbers of a token back, because they were not shown. The next visits get them."""
        self._unshown.append(numbers)
        self.shown -= len(numbers)
        assert self.shown >= 0


def _joined(numbers: Iterable[Numbers]) -> list[Numbers]:
    """Return the same numbers, in ascending order. Ranges that touch become one."""
    joined: list[Numbers] = []
    for one in sorted(numbers, key=lambda one: one.start):
        if joined and joined[-1].stop == one.start:
            joined[-1] = range(joined[-1].start, one.stop)
        else:
            joined.append(one)
    return joined
