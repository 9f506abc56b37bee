"""The record that one process has written about itself, as a reader gets it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

#: The fields of a record to read.
FIELDS = (
    *("hostname", "visits", "version", "labels", "faults"),
    *("marked", "started", "state", "away"),
)

#: The most characters of a text to show, as many as a hostname may have
#: (https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4); and the most labels, faults or outages
#: of one record, or versions of one step.
MAX_TEXT, MAX_WORDS = 253, 32

_VISITS = re.compile(r"[0-9]{1,16}")
_SIGN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ([0-9]{1,16})")
_OUTAGE = re.compile(r"([0-9]{1,12}\.[0-9]{1,6}) ([0-9]{1,12}\.[0-9]{1,6}) (\S*)")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


class Outage(NamedTuple):
    """An outage: a time in which a process was without Redis."""

    start: float
    """Seconds since 1970, by Redis's clock."""
    end: float
    """Seconds since 1970, by Redis's clock."""
    reason: str
    """Why Redis was away, without secrets."""


class Sign(NamedTuple):
    """A sign that the script has written."""

    time: float
    """Seconds since 1970, by Redis's clock."""
    shown: int
    """How many visits the process had shown before the sign."""


@dataclass(frozen=True)
class Record:
    """What one process has written about itself.

    :arg id: of the process. All ids differ.
    :arg hostname: of the replica that the process belongs to.
    :arg visits: how many the process has shown.
    :arg seen_at: when it last counted or told something, in seconds since 1970 by Redis's clock.
    :arg version: the label of the version that it runs; empty when it has none.
    :arg labels: of its replica.
    :arg faults: the kinds of faults that it has now.
    :arg started: when it began, by the same clock; 0 if an older version has not written it.
    :arg state: "draining" or "gone" if the process has said so, else empty.
    :arg away: its last outages of Redis.
    :arg sign: its last sign with visits, if Redis runs scripts.
    """

    id: str
    hostname: str
    visits: int
    seen_at: float
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    started: float = 0.0
    state: str = ""
    away: Sequence[Outage] = ()
    sign: Sign | None = None

    def moved(self, seconds: float) -> "Record":
        """Return the record with all times moved, after Redis's clock was set.

        :arg seconds: how much later the times become.
        """
        if not seconds:
            return self
        return replace(
            self,
            seen_at=self.seen_at + seconds,
            started=self.started and self.started + seconds,
            away=[Outage(one.start + seconds, one.end + seconds, one.reason) for one in self.away],
            sign=self.sign and Sign(self.sign.time + seconds, self.sign.shown),
        )


def record_of(id: str, seen_at: float, kept: Sequence[bytes | None]) -> Record | None:
    """Return the record of a process. An older version of the program may have written less.

    :arg seen_at: see `Record`.
    :arg kept: the values of the `FIELDS`.
    :return: None when there is no record, or this program has not written it.
    :raises ValueError: when the record cannot be read.
    """
    hostname, visits, version, labels, faults, marked, started, state, away = map(_text, kept)
    if not hostname or not visits:
        return None
    if not _VISITS.fullmatch(visits):
        raise ValueError(f"its visits are {cut(visits)!r}")
    sign = _SIGN.fullmatch(marked)
    begun = float(started) if _SECONDS.fullmatch(started) else 0.0
    return Record(
        id,
        cut(hostname),
        int(visits),
        seen_at,
        cut(version),
        {cut(key): cut(value) for key, value in _pairs(labels)},
        [cut(one) for one in faults.split(",")[:MAX_WORDS] if one],
        min(begun, seen_at),  # it is later only if the clock was set back
        state if state in ("draining", "gone") else "",
        [
            Outage(float(one[1]), float(one[2]), decoded(one[3]))
            for one in islice(_OUTAGE.finditer(away), MAX_WORDS)
        ],
        Sign(float(sign[1]), int(sign[2])) if sign else None,
    )


def _pairs(labels: str) -> list[list[str]]:
    words = labels.split(",")[:MAX_WORDS]
    return [word.split("=", 1) for word in words if "=" in word]


def _text(word: bytes | None) -> str:
    return word.decode(errors="replace") if word else ""


def decoded(word: str) -> str:
    """Return the text of a percent-encoded word, cut."""
    return cut(unquote(word, errors="replace"))


def cut(text: str) -> str:
    """Return a text, cut to the length that is shown."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
