"""The figures that a process writes about itself, beside the visits that it counts.

`figures.lua` writes them, once a second at most, right after the token of some visits. When Redis
refuses scripts, plain commands write them, by this machine's clock and without the histories.
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

from redis.exceptions import ResponseError

from counter import packed, process_key
from replicas.forms import OPEN, Form
from replicas.keys import DAY, HISTORIES, NAMES, history_key
from replicas.link import will_pass

#: Seconds between two signs that a process gives. No reader reads more often.
SIGN_EVERY = 1.0

#: Seconds from the start of a second to the sign in it. So all steps of a history get equally many
#: signs, even when Redis's clock is a little behind.
SIGN_LATE = 0.1

#: How many outages of Redis a process tells: the last ones.
MAX_OUTAGES = 8

#: If a time in Redis is wrong by more seconds, another clock gave it, and the process writes it
#: again.
OFF = 1.0

_SCRIPT = Path(__file__).with_name("figures.lua").read_text()
_DIGEST = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

#: The oldest Redis that is supported; see docs/settings.md.
OLDEST = "6.0"

log = logging.getLogger("friendlyhello.visits")


class Away(NamedTuple):
    """An outage: a time in which this process was without Redis."""

    start: float
    """Seconds of the monotonic clock."""
    end: float
    """Seconds of the monotonic clock."""
    reason: str
    """Why Redis was away, without secrets."""


class Figures:
    """The figures that one process writes about itself. It is a `counter.Beside`.

    :arg hostname: of the replica that the process belongs to.
    :arg version: the label of the version that the process runs, if it has one.
    :arg labels: of the replica. They hold no comma, and their keys hold no equals sign.
    """

    def __init__(
        self, hostname: str, version: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        self._labels = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        self._own = {"hostname": hostname, "version": version, "labels": self._labels}
        self.is_known = False
        """Whether the process may have written anything."""
        self.away: deque[Away] = deque(maxlen=MAX_OUTAGES)
        """The last outages of Redis."""
        self.news = asyncio.Event()
        """It is set when there may be something new to tell."""
        self._by_digest = functools.cache(lambda key: self._form(key, "EVALSHA", _DIGEST))
        self._second = -math.inf  # the second of the last sign
        self._started = 0.0  # when the process began, by Redis's clock, as told last
        self._is_in_full = True  # sends the whole script next: Redis may not know it
        self._has_said = False  # a refusal was logged

    @functools.cached_property
    def begun(self) -> float:
        """When the process began, in seconds of the monotonic clock. It is set at its first use."""
        return time.monotonic()

    def commands(self, key: str, shown: int, visits: int, scripts: bool) -> Sequence[bytes]:
        """Return the commands to send after a request; see `counter.Beside`.

        Without scripts, they write how many visits were shown, and once a second a sign. Then this
        process has no history until scripts run again.
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
        """Enter the present second. Tell whether it is a new one.

        The seconds are those of the clock. If they began with the last sign, one step of a history
        would get fewer signs than the next, and steady visits would show dips.
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
        version = quote(self._own["version"], safe="", errors="surrogateescape")  # it has no blank
        steps = (f"{one.step} {one.steps}" for one in HISTORIES.values())
        return Form(*way, len(keys), *keys, OPEN, _id(key), *self._own.values(), version, *steps)

    @property
    def _age(self) -> float:
        begun = self.begun  # the first use sets it to now
        return time.monotonic() - begun

    def told(self, key: str, now: float, **fields: str) -> Sequence[bytes]:
        """Return the commands that write fields, and give a sign.

        :arg key: of the process's record.
        :arg now: seconds since 1970, by Redis's clock.
        :arg fields: what to write into the record.
        """
        self.is_known = True
        first = packed("HSETNX", key, "visits", 0)  # readers skip a record without visits
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
        """Log the first command that Redis refuses. The visits count anyway.

        :arg why: the command's first word, a colon, and the text of the error.
        """
        error = why.partition(": ")[2]
        if error.startswith("NOSCRIPT"):
            self._is_in_full, self._second = True, -math.inf  # send it with the next request
        elif will_pass(ResponseError(error)):
            pass  # the next sign tells the same
        elif not self._has_said:
            self._has_said = True
            if "non deterministic" in why:  # an old Redis refuses writes after TIME
                why += f"; Redis {OLDEST} is the oldest that is supported"
            log.warning("Redis refuses some of the live page's figures: %s", why)

    def was_away(self, start: float, end: float, reason: str) -> None:
        """Note an outage of Redis, so that `Telling` tells it at once.

        :arg start: when it began, in seconds of the monotonic clock.
        :arg end: when it ended, in seconds of the same clock.
        :arg reason: why, without secrets.
        """
        self.away.append(Away(start, end, reason))
        self._is_in_full = True  # this may be another Redis
        self.news.set()


def _id(key: str) -> str:
    return key.removeprefix(process_key(""))


def _words(fields: Mapping[str, str | int]) -> list[str | int]:
    return [word for pair in fields.items() for word in pair]
