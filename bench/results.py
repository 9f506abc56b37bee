"""The figures of a run, and calculations with them. Nothing here measures."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

#: If the load's busiest core was busy for more than this share, the load may have been the limit.
SATURATED = 0.9

#: The kinds of load: on kept connections, with a new connection for each request, and HTTPS on kept
#: connections.
KEPT, NEW, HTTPS = "kept", "new", "https"

#: The open loops, and their share of the rate that the slowest of the first three can do.
OPEN = {"open, half": 0.5, "open, nine tenths": 0.9}


@dataclass(frozen=True)
class Row:
    """One measurement of one server, or of several of the same kind together."""

    server: str
    log: bool
    """Whether the server logged each request."""
    round: int
    connections: int
    rate: float
    """Answers per second."""
    p50: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""
    cpu: float
    """Microseconds of CPU time per visit, of the server and its children."""
    commands: float
    """INCR and INCRBY commands per visit."""
    memory: float
    """Resident memory in MiB, of the server and its children."""
    busy: float
    """Share of the time in which the busiest core of the load and Redis was busy, from 0 to 1."""
    command_rate: float
    """INCR and INCRBY commands per second."""
    command_cpu: float
    """Microseconds of Redis's CPU time per command."""
    problem: str = ""
    """What a check found: failed answers, or a counter that does not match the answers."""
    kind: str = KEPT
    """The kind of load."""
    due: float = 0.0
    """Requests per second of an open loop; 0 in a closed one."""
    servers: int = 1
    """How many servers shared the connections."""
    processes: int = 1
    """How many processes the server had, each with a core of its own."""
    distance: float = 0.0
    """Milliseconds that the proxy added to a round trip to Redis."""
    round_trip: float = 0.0
    """Milliseconds of a round trip to Redis, as measured through the proxy; 0 without one."""


@dataclass(frozen=True)
class Start:
    """One start of a server."""

    server: str
    log: bool
    round: int
    ms: float
    """Milliseconds from the command to the first page."""


@dataclass(frozen=True)
class InProcess:
    """The cost of a page of friendlyhello in process; see `bench.page`."""

    clients: int
    microseconds: float
    """CPU time."""
    instructions: float | None
    """None when nothing could count them."""


@dataclass
class Results:
    """Everything that one run found."""

    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    seconds: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)
    """For each server that was not measured, why."""
    skipped: list[str] = field(default_factory=list)
    """What else was not measured, and why, in a sentence each."""
    traffic: dict[str, int] = field(default_factory=dict)
    """Bytes of a ``request`` and of its ``answer``, with headers."""
    rows: list[Row] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    pages: list[InProcess] = field(default_factory=list)
    growth: list[Row] = field(default_factory=list)
    """With more and more connections."""
    distance: list[Row] = field(default_factory=list)
    """With Redis further and further away."""
    servers: list[Row] = field(default_factory=list)
    """With more and more servers on one Redis."""
    processes: list[Row] = field(default_factory=list)
    """With one process on one core, and with two processes on two cores."""

    def of(
        self, server: str, log: bool, connections: int | None = 64, kind: str = KEPT
    ) -> list[Row]:
        """Return the measurements of a server in every round; none when it was not measured.

        :arg connections: None for a kind of load that has only one number of connections.
        """
        return [
            row
            for row in self.rows
            if (row.server, row.log, row.kind) == (server, log, kind)
            and connections in (None, row.connections)
        ]

    def median(
        self, figure: str, server: str, log: bool, connections: int = 64, kind: str = KEPT
    ) -> float:
        """Return the median of one figure, which must have been measured.

        :arg figure: the name of a field of `Row`.
        """
        return spread(values(self.of(server, log, connections, kind), figure)).median

    def ranking(self, log: bool, kind: str = KEPT) -> list[str]:
        """Name the servers that were measured at 64 connections, the fastest first.

        :arg log: whether they logged each request.
        """
        names = dict.fromkeys(row.server for row in self.rows if row.commands)
        rates = {
            name: self.median("rate", name, log, kind=kind)
            for name in names
            if self.of(name, log, kind=kind)
        }
        return sorted(rates, key=lambda name: -rates[name])

    def first_pages(self, server: str, log: bool) -> list[float]:
        """Return the milliseconds to the first page, of every round."""
        return [one.ms for one in self.starts if (one.server, one.log) == (server, log)]

    @property
    def failed(self) -> list[Row]:
        """The measurements in which a check failed."""
        return [row for part in ROWS for row in getattr(self, part) if row.problem]

    @property
    def problems(self) -> list[str]:
        """The failed checks, one line each."""
        return [f"{row.server}, {_load_of(row)}: {row.problem}" for row in self.failed]

    def dump(self, path: Path) -> None:
        """Write the results as JSON, with one measurement on a line, so that a diff is readable."""
        every = json.dumps(asdict(self))
        parts = []
        for key, value in json.loads(every, parse_float=_rounded).items():
            text = json.dumps(value, ensure_ascii=False)
            if isinstance(value, list):
                text = "[\n" + ",\n".join(f"  {json.dumps(one)}" for one in value) + "\n]"
            parts.append(f"{json.dumps(key)}: {text}")
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


#: The fields of `Results` that hold rows.
ROWS = ("rows", "growth", "distance", "servers", "processes")


def _rounded(text: str) -> float:
    return float(f"{float(text):.5g}")


def _load_of(row: Row) -> str:
    return f"{row.connections} connections{'' if row.kind == KEPT else f' ({row.kind})'}"


def load(text: str) -> Results:
    """Return the results that `Results.dump` wrote."""
    found = json.loads(text)
    for key, kind in (dict.fromkeys(ROWS, Row) | {"starts": Start, "pages": InProcess}).items():
        found[key] = [kind(**one) for one in found[key]]
    return Results(**found)


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The difference between the lowest and the highest."""
        return self.high - self.low


def values(rows: Iterable[Row], figure: str) -> list[float]:
    """Return one figure, the name of a field, of each row."""
    return [getattr(row, figure) for row in rows]


def spread(figures: Sequence[float]) -> Spread:
    """Return the median, the lowest and the highest of the rounds' figures."""
    return Spread(statistics.median(figures), min(figures), max(figures))


def saturated(rows: Sequence[Row]) -> bool:
    """Tell whether the load may have been the limit, so that the rate is a lower bound."""
    return bool(rows) and spread(values(rows, "busy")).median > SATURATED


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide round by round, because a slow moment of a round slows both servers.

    :return: the ratios; infinity where the other figure is 0.
    """
    return [a / b if b else math.inf for a, b in zip(ours, theirs, strict=True)]


#: The figures that are compared between runs, and their units.
WATCHED = {
    "rate": "requests/s",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "cpu": "CPU, µs per visit",
    "commands": "Redis commands per visit",
    "memory": "memory, MiB",
}


def moved(before: Results, now: Results) -> list[tuple[str, Spread, Spread]]:
    """Return the figures whose medians differ by more than either run's spread.

    :return: the figure's name, and its spread in each run.
    """
    old, new = _watched(before), _watched(now)
    pairs = ((what, old[what], new[what]) for what in new if what in old)
    return [
        (what, a, b) for what, a, b in pairs if abs(b.median - a.median) > max(a.width, b.width)
    ]


def _watched(results: Results) -> dict[str, Spread]:
    figures: dict[str, list[float]] = {}
    for row in results.rows:
        for name, unit in WATCHED.items():
            what = f"{_logged(row)}, {_load_of(row)}: {unit}"
            figures.setdefault(what, []).append(getattr(row, name))
    for start in results.starts:
        figures.setdefault(f"{_logged(start)}: first page, ms", []).append(start.ms)
    return {what: spread(found) for what, found in figures.items()}


def _logged(one: Row | Start) -> str:
    return f"{one.server}{', log on' if one.log else ''}"
