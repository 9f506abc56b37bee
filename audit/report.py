"""Judges a load's visits, and reports on them as text and as JSON."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from audit.load import Visit

#: How many numbers, or ranges of numbers, the text has at most. JSON has them all.
MOST_PRINTED = 10

BAR = 30  # columns


class Most(NamedTuple):
    """How many visits, or which share of the visits, are allowed."""

    text: str
    """As the command line gives it: ``N`` or ``N%``."""

    @classmethod
    def of(cls, text: str) -> "Most":
        """Read ``N`` or ``N%``.

        :raises ValueError: for any other text; the message says what is allowed.
        """
        share = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", text)
        if re.fullmatch("[0-9]{1,9}", text) or (share and float(share[1]) <= 100):
            return cls(text)
        raise ValueError(f"{text!r}: allowed is a whole number, or a share from 0% to 100%")

    def is_less_than(self, visits: int, made: int) -> bool:
        """Tell whether these visits are more than allowed.

        :arg visits: how many.
        :arg made: how many visits were made in all.
        """
        if self.text.endswith("%"):
            return 100 * visits > float(self.text[:-1]) * made
        return visits > int(self.text)


@dataclass(frozen=True)
class Judgement:
    """The conditions under which the audit holds."""

    exclusive: bool = False
    """Whether nobody else visited, so that no number may be missing."""
    max_failures: int = 0
    """How many visits may fail."""
    max_uncounted: Most | None = None
    """How many visits may get no number; None for all but one."""


class Report:
    """The figures of the visits, and whether the audit holds.

    :arg visits: all visits, in any order.
    :arg seconds: how long the load lasted.
    :arg judgement: the conditions under which the audit holds.
    :arg rate: how many visits were due in a second; None for no rate.
    """

    def __init__(
        self,
        visits: Sequence[Visit],
        seconds: float,
        judgement: Judgement | None = None,
        rate: float | None = None,
    ) -> None:
        self.judgement = judgement or Judgement()
        self.seconds = seconds
        self.rate = rate
        self.made = len(visits)
        self.replicas = Counter(visit.replica for visit in visits if visit.replica is not None)
        self.failures = Counter(visit.failure for visit in visits if visit.failure is not None)
        self.failed = self.failures.total()
        numbers = Counter(visit.number for visit in visits if visit.number is not None)
        self.counted = numbers.total()
        self.uncounted = self.made - self.counted - self.failed
        self.numbers = sorted(numbers)
        self.twice = sorted(number for number, times in numbers.items() if times > 1)
        self.missing = _gaps(self.numbers)
        self.latencies = sorted(visit.latency for visit in visits if visit.failure is None)
        ends = sorted(visit.end for visit in visits if visit.number is not None)
        self.stretch = _longest_stretch([0.0, *ends, seconds])

    @property
    def number_missing(self) -> int:
        """How many numbers between the lowest and the highest no visit has shown."""
        return sum(last - first + 1 for first, last in self.missing)

    @property
    def reached(self) -> float:
        """How many visits were made in a second."""
        reached = self.made / self.seconds if self.seconds else 0.0
        # The load does not wait for the pause after the last visit. Without this limit, a load of
        # few visits would seem faster than its rate.
        return min(reached, self.rate) if self.rate else reached

    @property
    def problems(self) -> list[str]:
        """Why the audit does not hold; empty when it does."""
        found = []
        if self.twice:
            found.append(f"{_many(len(self.twice), 'number')} shown twice")
        if self.judgement.exclusive and self.missing:
            found.append(f"{_many(self.number_missing, 'number')} missing")
        if self.failed > self.judgement.max_failures:
            allowed = self.judgement.max_failures
            found.append(f"{_many(self.failed, 'visit')} failed, allowed {allowed:,}")
        most = self.judgement.max_uncounted
        if most and most.is_less_than(self.uncounted, self.made):
            found.append(f"{_many(self.uncounted, 'visit')} uncounted, allowed {most.text}")
        if not self.counted:
            found.append("no visit got a number, so nothing was checked")
        return found

    def latency(self, share: float) -> float | None:
        """Return the latency that a share of the answered visits did not exceed, in seconds.

        It counts from when a visit was due: a slow server makes visits wait for a free connection.

        :arg share: from 0 to 1; 1 gives the slowest visit.
        :return: None when no visit was answered.
        """
        if not self.latencies:
            return None
        return self.latencies[max(1, math.ceil(share * len(self.latencies))) - 1]

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object; times in seconds, latencies in milliseconds."""
        return {
            "holds": not self.problems,
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
            "rate": {"asked": self.rate, "reached": round(self.reached, 3)},
            "visits": {
                "made": self.made,
                "counted": self.counted,
                "uncounted": self.uncounted,
                "failed": self.failed,
            },
            "failures": dict(self.failures.most_common()),
            "replicas": dict(self.replicas.most_common()),
            "numbers": {
                "lowest": self.numbers[0] if self.numbers else None,
                "highest": self.numbers[-1] if self.numbers else None,
                "twice": self.twice,
                "missing": self.number_missing,
                "missing_ranges": self.missing,
            },
            "latency_ms": {name: _ms(self.latency(share)) for name, share in _SHARES.items()},
            "longest_uncounted": {
                "from": round(self.stretch[0], 3),
                "seconds": round(self.stretch[1] - self.stretch[0], 3),
            },
        }

    def as_text(self) -> str:
        """Return the report as lines for a terminal."""
        asked = f": {self.reached:,.1f}/s of the {self.rate:,g}/s asked for" if self.rate else ""
        lines = [f"{_many(self.made, 'visit')} in {self.seconds:.1f} s{asked}", "", "replica"]
        width = max([len(name) for name in self.replicas] + [9])
        answered = self.replicas.total()
        for name, answers in self.replicas.most_common():
            share = answers / answered
            lines.append(
                f"  {name:{width}} {answers:9,} {share:7.1%}  {'█' * max(1, round(share * BAR))}"
            )
        lines += [] if answered else ["  none answered"]
        lines += ["", "visits"]
        lines.append(f"  {'counted':{width}} {self.counted:9,}")
        lines.append(f"  {'uncounted':{width}} {self.uncounted:9,}")
        lines.append(f"  {'failed':{width}} {self.failed:9,}")
        lines += [
            f"    {kind:{width - 2}} {times:9,}" for kind, times in self.failures.most_common()
        ]
        start, end = self.stretch
        lines += [
            "",
            "numbers",
            f"  lowest to highest    {_range(self.numbers)}",
            f"  shown twice          {_printed([(n, n) for n in self.twice], len(self.twice))}",
            f"  missing              {_printed(self.missing, self.number_missing)}",
            "",
            "latency   "
            + "   ".join(f"{name} {_ms_text(self.latency(s))}" for name, s in _SHARES.items())
            + ("   from when each was due" if self.rate else ""),
            f"longest stretch without a counted visit: {end - start:.2f} s, from {start:.2f} s on",
            "",
            "The audit holds." if not self.problems else f"FAILED: {'; '.join(self.problems)}.",
        ]
        return "\n".join(lines)


_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def _gaps(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last number of each gap in a sorted list."""
    pairs = itertools.pairwise(numbers)
    return [(low + 1, high - 1) for low, high in pairs if high > low + 1]


def _longest_stretch(times: Sequence[float]) -> tuple[float, float]:
    return max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,} to {numbers[-1]:,}" if numbers else "no visit was counted"


def _printed(ranges: Sequence[tuple[int, int]], number: int) -> str:
    if not number:
        return "none"
    shown = [f"{a:,}" if a == b else f"{a:,}–{b:,}" for a, b in ranges[:MOST_PRINTED]]
    more = ", …" if len(ranges) > MOST_PRINTED else ""
    return f"{number:,}: {', '.join(shown)}{more}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _ms_text(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:,.1f} ms"
