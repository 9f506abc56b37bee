"""The figures of a run, and calculations with them. Nothing here measures."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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

    def figures(
        self, figure: str, server: str, log: bool, connections: int | None, kind: str = KEPT
    ) -> list[float]:
        """Return one figure of every round; an empty list when it was not measured.

        :arg figure: the name of a field of `Row`.
        :arg connections: None for a kind of load that has only one number of connections.
        """
        return [
            getattr(row, figure)
            for row in self.rows
            if (row.server, row.log, row.kind) == (server, log, kind)
            and connections in (None, row.connections)
        ]

    def median(
        self, figure: str, server: str, log: bool, connections: int | None, kind: str = KEPT
    ) -> float:
        """Return the median of one figure, which must have been measured."""
        return statistics.median(self.figures(figure, server, log, connections, kind))

    def ranking(self, log: bool) -> list[str]:
        """Name the servers that were measured at 64 connections, the fastest first.

        :arg log: whether they logged each request.
        """
        names = dict.fromkeys(row.server for row in self.rows if row.commands)
        rates = {
            name: self.median("rate", name, log, 64)
            for name in names
            if self.figures("rate", name, log, 64)
        }
        return sorted(rates, key=lambda name: -rates[name])

    def first_pages(self, server: str, log: bool) -> list[float]:
        """Return the milliseconds to the first page, of every round."""
        return [one.ms for one in self.starts if (one.server, one.log) == (server, log)]

    def saturated(self, server: str, log: bool, connections: int | None, kind: str = KEPT) -> bool:
        """Tell whether the load may have been the limit, so that the rate is a lower bound."""
        busy = self.figures("busy", server, log, connections, kind)
        return bool(busy) and statistics.median(busy) > SATURATED

    @property
    def failed(self) -> list[Row]:
        """The measurements in which a check failed."""
        every = [*self.rows, *self.growth, *self.distance, *self.servers, *self.processes]
        return [row for row in every if row.problem]

    @property
    def problems(self) -> list[str]:
        """The failed checks, one line each."""
        return [
            f"{row.server}, {row.connections} connections{_aside(row)}: {row.problem}"
            for row in self.failed
        ]

    def dump(self, path: Path) -> None:
        """Write the results as JSON, with one measurement on a line, so that a diff is readable."""
        parts = []
        for key, value in asdict(self).items():
            text = json.dumps(value, ensure_ascii=False)
            if isinstance(value, list):
                text = "[\n" + ",\n".join(f"  {json.dumps(_rounded(one))}" for one in value) + "\n]"
            parts.append(f"{json.dumps(key)}: {text}")
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _aside(row: Row) -> str:
    return "" if row.kind == KEPT else f" ({row.kind})"


def load(text: str) -> Results:
    """Return the results that `Results.dump` wrote."""
    found = json.loads(text)
    for key in ("rows", "growth", "distance", "servers", "processes"):
        found[key] = [Row(**row) for row in found.get(key, [])]
    found["starts"] = [Start(**start) for start in found["starts"]]
    found["pages"] = [InProcess(**page) for page in found.get("pages", [])]
    return Results(**found)


def _rounded(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    return {
        key: float(f"{value:.5g}") if isinstance(value, float) else value
        for key, value in row.items()
    }


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The difference between the lowest and the highest."""
        return self.high - self.low


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the lowest and the highest of the rounds' figures."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide round by round, because a slow moment of a round slows both servers.

    :return: the ratios; infinity where the other figure is 0.
    """
    return [a / b if b else math.inf for a, b in zip(ours, theirs, strict=True)]


def lowest(figures: Iterable[Sequence[float]]) -> list[float]:
    """Return the lowest of several servers' figures, round by round."""
    return [min(of_round) for of_round in zip(*figures, strict=True)]


class Moved(NamedTuple):
    """A figure that differs between two runs by more than its spread."""

    what: str
    before: Spread
    now: Spread


#: The figures that are compared between runs, and their units.
WATCHED = {
    "rate": "requests/s",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "cpu": "CPU, µs per visit",
    "commands": "Redis commands per visit",
    "memory": "memory, MiB",
}


def same_machine(before: Results, now: Results) -> bool:
    """Tell whether two runs are from the same kind of machine, so that their figures compare."""
    return all(before.machine.get(key) == now.machine.get(key) for key in ("cpu", "cores"))


def differs(before: Results, now: Results) -> list[str]:
    """Return the versions and the servers in which two runs differ."""
    versions = [
        f"{name} {now.versions.get(name, 'is missing')} instead of {version}"
        for name, version in before.versions.items()
        if now.versions.get(name) != version
    ]
    gone = [name for name in now.missing if name not in before.missing]
    return versions + [f"{name} is not measured" for name in gone]


def moved(before: Results, now: Results) -> list[Moved]:
    """Return the figures whose medians differ by more than either run's spread."""
    found = []
    for what, figures in _watched(now).items():
        if (earlier := _watched(before).get(what)) is None:
            continue
        old, new = spread(earlier), spread(figures)
        if abs(new.median - old.median) > max(old.width, new.width):
            found.append(Moved(what, old, new))
    return found


def _watched(results: Results) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for row in results.rows:
        log = ", log on" if row.log else ""
        which = f"{row.server}{log}, {row.connections} connections{_aside(row)}"
        for name, unit in WATCHED.items():
            figures.setdefault(f"{which}: {unit}", []).append(getattr(row, name))
    for start in results.starts:
        which = f"{start.server}{', log on' if start.log else ''}: first page, ms"
        figures.setdefault(which, []).append(start.ms)
    return figures
