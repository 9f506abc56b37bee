"""What a process writes of itself, beside the visits that it counts.

`figures.lua` writes it, once a second at most, right behind the token of some visits. Where Redis
refuses scripts, plain commands do, by this machine's clock, and all but the histories.
"""

import asyncio
import functools
import hashlib
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from counter import packed, process_key
from replicas.forms import OPEN, Form
from replicas.keys import DAY, HISTORIES, NAMES, history_key

#: Seconds between two signs that a process gives: nobody looks more closely.
SIGN_EVERY = 1.0

#: Seconds by which signs come later than the steps of histories begin. So each step gets as many,
#: also where Redis's clock is a little behind.
SIGN_LATE = 0.1

#: Times without Redis that are told, the last ones.
MAX_SPELLS = 8

#: Seconds past which a time that was written is taken for another clock's, and is written anew.
OFF = 1.0

_SCRIPT = Path(__file__).with_name("figures.lua").read_text()
_DIGEST = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

#: The oldest Redis that is supported; see docs/settings.md.
OLDEST = "6.0"

log = logging.getLogger("friendlyhello.visits")


class Away(NamedTuple):
    """A time in which this process was without Redis."""

    start: float
    """Seconds of the monotonic clock."""
    end: float
    """The same."""
    reason: str
    """Why, without secrets."""


class Figures:
    """What one process writes of itself; a `counter.Beside`.

    :arg hostname: the replica's that the process belongs to.
    :arg version: the label of the version that it runs, if it has one.
    :arg labels: the replica's, if it has some; without commas, and no key has an equals sign.
    """

    def __init__(
        self, hostname: str, version: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        self._labels = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        self._own = {"hostname": hostname, "version": version, "labels": self._labels}
        self.is_known = False
        """Whether the process may have written anything."""
        self.away: deque[Away] = deque(maxlen=MAX_SPELLS)
        """When it was without Redis, the last times."""
        self.news = asyncio.Event()
        """Set when there is one more."""
        self._by_digest = functools.cache(lambda key: self._form(key, "EVALSHA", _DIGEST))
        self._second = -math.inf  # in which it gave its last sign
        self._started = 0.0  # by Redis's clock, as was told last
        self._is_in_full = True  # the script goes along: Redis may not know it
        self._has_said = False  # what Redis refuses

    @functools.cached_property
    def begun(self) -> float:
        """When the process began, on the monotonic clock; asked for late, as it may be forked."""
        return time.monotonic()

    def commands(self, key: str, shown: int, visits: int, scripts: bool) -> Sequence[bytes]:
        """Return what goes behind a request for visits; see `counter.Beside`.

        Without scripts it is the sum, and with the first of a second a sign; then this process has
        no history until scripts run again.
        """
        if not visits:
            return ()
        is_first = self._enter_second()
        if not scripts:
            sums = {"visits": shown + visits}
            if is_first:
                return self._sign(key, time.time(), **sums, marked="")
            return [packed("HSET", key, *_words(sums))]
        return [self._script(key, shown)] if is_first else ()

    def _enter_second(self) -> bool:
        """Enter the present second; tell whether it is another one than before.

        Seconds are those of the clock, and do not begin with the last sign: else one step of a
        history would get fewer signs than the next, and steady visits would show dips.
        """
        before, self._second = self._second, (time.time() - SIGN_LATE) // SIGN_EVERY
        self.is_known = True
        return self._second != before

    def _script(self, key: str, shown: int) -> bytes:
        if self._is_in_full:
            form, self._is_in_full = self._form(key, "EVAL", _SCRIPT), False
        else:
            form = self._by_digest(key)
        return form.filled(f"{shown} {self._age:.3f}")

    def _form(self, key: str, *way: str) -> Form:
        keys = (key, NAMES, *map(history_key, HISTORIES))
        version = quote(self._own["version"], safe="", errors="surrogateescape")  # without a blank
        steps = (f"{one.step} {one.steps}" for one in HISTORIES.values())
        return Form(*way, len(keys), *keys, OPEN, _id(key), *self._own.values(), version, *steps)

    @property
    def _age(self) -> float:
        begun = self.begun  # which may be now
        return time.monotonic() - begun

    def told(self, key: str, now: float, **fields: str) -> Sequence[bytes]:
        """Return what writes fields, and gives a sign.

        :arg key: of the process's record.
        :arg now: the time by Redis's clock.
        """
        self.is_known = True
        first = packed("HSETNX", key, "visits", 0)  # without a number it would not be read
        before, self._started = self._started, now - self._age
        if before and abs(self._started - before) > OFF:
            fields["started"] = f"{self._started:.3f}"  # Redis's clock was set
        return [first, *self._sign(key, now, **fields)]

    def _sign(self, key: str, now: float, **fields: str | int) -> Sequence[bytes]:
        return [
            packed("HSET", key, *_words(fields | self._own)),
            packed("HSETNX", key, "started", f"{now - self._age:.3f}"),
            packed("EXPIRE", key, DAY),
            packed("ZADD", NAMES, f"{now:.3f}", _id(key)),
            packed("ZREMRANGEBYSCORE", NAMES, "-inf", f"{now - DAY:.3f}"),
            packed("EXPIRE", NAMES, DAY),
        ]

    def refused(self, why: str) -> None:
        """Log, once, what Redis refuses of this; visits count all the same.

        :arg why: a command's first word, a colon, and the text of its error.
        """
        if why.partition(": ")[2].startswith("NOSCRIPT"):
            self._is_in_full, self._second = True, -math.inf  # at once, not in the next second
        elif not self._has_said:
            self._has_said = True
            if "non deterministic" in why:  # it may not write after it has asked for the time
                why += f"; Redis {OLDEST} is the oldest that is supported"
            log.warning("not all that stands beside the counter can be kept: %s", why)

    def was_away(self, start: float, end: float, reason: str) -> None:
        """Have it told, at once, when the process was without Redis.

        :arg start: on the monotonic clock, as ``end``.
        :arg reason: why, without secrets.
        """
        self.away.append(Away(start, end, reason))
        self._is_in_full = True  # it may be another Redis
        self.news.set()


def _id(key: str) -> str:
    return key.removeprefix(process_key(""))


def _words(fields: Mapping[str, str | int]) -> list[str | int]:
    return [word for pair in fields.items() for word in pair]
