"""What each process writes of itself beside the counter, for all to see.

All keys have the counter's name as their hash tag, so that they lie in its slot and go with its
commands (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).

===========================  ===================================================================
``{counter}:process:ID``     a hash: the ``hostname`` of the replica that the process belongs to,
                             the ``version`` it runs, its ``labels`` as ``key=value,…``, when it
                             ``started``, the ``visits`` it has shown, its last ``token`` (see
                             `counter.delivery`); ``marked``, the time when it was last seen
                             counting, and what it had shown before; and what `counter.telling`
                             tells; dropped a day after its last visit
``{counter}:processes``      a sorted set: ids, by the time at which each was seen
``{counter}:last:5m``,       hashes, one for each of the `HISTORIES`: for each of its steps the
``…:1h``, ``…:1d``           second at which it began, and the visits shown in it by version, as
                             ``1764220000 1.0=12 1.1=3``, versions percent-encoded
===========================  ===================================================================

`token.lua` writes them, times by Redis's clock. Where Redis refuses scripts, plain commands do, by
this machine's clock, and all but the histories.
"""

import functools
import math
import secrets
import time
from collections.abc import Mapping
from typing import NamedTuple

from counter.connection import Command

#: Seconds after which a replica that was not seen is dropped.
DAY = 24 * 60 * 60

#: Seconds between two marks that a replica is there: nobody looks more closely.
MARK_EVERY = 1.0

#: Seconds that marks come later than the steps of histories begin. So each step gets as many, also
#: where Redis's clock is a little behind.
MARK_LATE = 0.1


class History(NamedTuple):
    """How long Redis remembers what was counted, and how exactly."""

    step: int
    """The seconds of a step, of which it knows the visits."""
    steps: int
    """How many it has; the newest one takes the place of the oldest."""


#: What is remembered, each under the name of its length.
HISTORIES: Mapping[str, History] = {
    "5m": History(2, 150),
    "1h": History(30, 120),
    "1d": History(600, 144),
}


class ProcessStatistics:
    """What one process writes with the visits that it counts.

    :arg counter: the counter's key.
    :arg hostname: the replica's that it belongs to.
    :arg version: the label of the version that it runs, if it has one.
    :arg labels: the replica's, if it has some; without commas, and no key has an equals sign.
    """

    def __init__(
        self,
        counter: str,
        hostname: str,
        version: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._counter = counter
        self.names_key = names_key(counter)
        self.hostname = hostname
        self.version = version
        self.labels = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        self.shown = 0
        """Visits that got a number."""
        self.is_known = False
        """Whether it may have written anything."""
        self._marked = -math.inf

    @functools.cached_property
    def id(self) -> str:
        """What tells this process from all others; made late, as it may be forked."""
        self._begun  # noqa: B018
        return secrets.token_urlsafe(12)

    @functools.cached_property
    def _begun(self) -> float:
        return time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the process began to look for Redis."""
        return time.monotonic() - self._begun

    @property
    def key(self) -> str:
        """Where it writes."""
        return process_key(self._counter, self.id)

    def is_due(self) -> bool:
        """Tell, once in `MARK_EVERY`, that the process is to be marked as seen.

        It goes by the clock, not by the last mark: else one step of a history would get fewer marks
        than the next, and steady visits would show dips.
        """
        now = (time.time() - MARK_LATE) // MARK_EVERY
        due = now != self._marked
        if due:
            self._marked, self.is_known = now, True
        return due

    def commands(self, visits: int) -> list[Command]:
        """Return what adds visits; with the first of a second also that the process was seen.

        It ends the history of this process, which goes on once the script does.

        Names are dropped by the second that this machine's clock shows. What a page says was seen
        when is by Redis's own, from what is left of the day, so clocks may differ.
        """
        visits += self.shown
        if not self.is_due():
            return [("HSET", self.key, "visits", visits)]
        return self._mark(time.time(), visits=visits, marked="")

    def told(self, now: float, **fields: str) -> list[Command]:
        """Return what writes fields, and that the process was seen.

        :arg now: the time by Redis's clock.
        """
        self.is_known = True
        first = ("HSETNX", self.key, "visits", 0)  # without a number it would not be read
        return [first, *self._mark(now, **fields)]

    def _mark(self, now: float, **fields: str | int) -> list[Command]:
        own = {"hostname": self.hostname, "version": self.version, "labels": self.labels}
        words = [word for pair in (fields | own).items() for word in pair]
        return [
            ("HSET", self.key, *words),
            ("HSETNX", self.key, "started", f"{now - self.age:.3f}"),
            ("EXPIRE", self.key, DAY),
            ("ZADD", self.names_key, f"{now:.3f}", self.id),
            ("ZREMRANGEBYSCORE", self.names_key, "-inf", f"{now - DAY:.3f}"),
            ("EXPIRE", self.names_key, DAY),
        ]


def history_key(counter: str, last: str) -> str:
    """Return the key of one of the `HISTORIES`."""
    return f"{{{counter}}}:last:{last}"


def names_key(counter: str) -> str:
    """Return the key of the processes' ids."""
    return f"{{{counter}}}:processes"


def process_key(counter: str, id: str) -> str:
    """Return the key of what a process keeps."""
    return f"{{{counter}}}:process:{id}"
