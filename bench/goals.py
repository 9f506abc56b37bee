"""The goals: promises about the figures. Tells which of them hold."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.results import HTTPS, KEPT, NEW, Results, lowest, ratios, spread
from bench.servers import BY_NAME, OURS, SERVERS
from bench.text import shown, table

#: The Python servers that a user might choose instead.
PYTHON_PEERS = tuple(server.name for server in SERVERS if server.python and server.name != OURS)

#: Returns a figure of each round, with the log off or on, or raises `Missing`.
Values = Callable[[Results, bool], list[float]]


class Missing(LookupError):
    """A figure that was not measured."""


@dataclass(frozen=True)
class Goal:
    """A promise about the figures, judged by the median over the rounds."""

    text: str
    limit: float
    at_least: bool
    values: Values
    unit: str = " ×"
    logs: tuple[bool, ...] = (False,)
    """For which settings of the log it is judged: off, on, or both."""
    saturated: Callable[[Results], bool] = lambda results: False
    """Whether the load may have slowed the peer down, so that a ratio is an upper bound."""

    def holds(self, values: Sequence[float]) -> bool:
        """Tell whether the median keeps the promise."""
        median = spread(values).median
        return median >= self.limit if self.at_least else median <= self.limit


def _of(figure: str, server: str, level: int = 64, kind: str = KEPT) -> Values:
    """Return a function that looks up a figure of one server."""

    def values(results: Results, log: bool) -> list[float]:
        found = results.figures(figure, server, log, level, kind)
        if not found or not all(found):  # 0 means that there was no answer
            raise Missing
        return found

    return values


def _unlogged(values: Values) -> Values:
    """Look up the figure without a log, even if the other side has a log."""
    return lambda results, log: values(results, False)


def _first_pages(server: str) -> Values:
    def values(results: Results, log: bool) -> list[float]:
        if not (found := results.first_pages(server, log)):
            raise Missing
        return found

    return values


def _ratio(ours: Values, theirs: Values) -> Values:
    return lambda results, log: ratios(ours(results, log), theirs(results, log))


def _lowest(every: Iterable[Values]) -> Values:
    """Return the lowest of the measured figures, round by round."""
    every = tuple(every)

    def values(results: Results, log: bool) -> list[float]:
        found = []
        for one in every:
            try:
                found.append(one(results, log))
            except Missing:
                continue
        if not found:
            raise Missing
        return lowest(found)

    return values


def _as_it_runs(server: str, figure: Callable[[str], Values]) -> Values:
    """Look up a peer's figure with its main variant, because Flask's own server always logs."""
    main = next(iter(BY_NAME[server].variants))
    return lambda results, log: figure(server)(results, main)


def fastest_python(results: Results, log: bool, kind: str = KEPT) -> str:
    """Name the Python peer with the most requests/s at 64 connections."""
    rates = {
        name: results.median("rate", name, log, 64, kind)
        for name in PYTHON_PEERS
        if results.figures("rate", name, log, 64, kind)
    }
    if not rates:
        raise Missing
    return max(rates, key=lambda name: rates[name])


def _fastest(kind: str = KEPT) -> Values:
    def values(results: Results, log: bool) -> list[float]:
        return _of("rate", fastest_python(results, log, kind), kind=kind)(results, log)

    return values


def _rate(text: str, peer: str, limit: float, logs: tuple[bool, ...], level: int = 64) -> Goal:
    """Compare requests/s with a peer's."""
    return Goal(
        f"requests/s, {text}",
        limit,
        True,
        _ratio(_of("rate", OURS, level), _of("rate", peer, level)),
        logs=logs,
        saturated=lambda results: results.saturated(peer, logs[0], level),
    )


def _p99(text: str, level: int, theirs: Values) -> Goal:
    """Compare a p99 with the lowest p99 of some peers."""
    ours = _of("p99", OURS, level)
    return Goal(f"p99 at {_connections(level)}, {text}", 1.0, False, _ratio(ours, theirs))


def _connections(level: int) -> str:
    return f"{level:,} connection{'' if level == 1 else 's'}"


def _python_p99(level: int) -> Values:
    return _lowest(
        _as_it_runs(name, lambda server: _of("p99", server, level)) for name in PYTHON_PEERS
    )


_BOTH = (False, True)
_PYTHON_P99 = "of the lowest of the Python peers'"
_GO, _NGINX = "of Go `net/http` with redigo", "of nginx with Lua"

#: The goals against servers that a Python user might choose.
_PYTHON_GOALS = (
    _rate("of the guide's Flask app on its own server", "flask", 10, (True,)),
    _rate("of plain Tornado with `redis.asyncio`", "tornado", 5, _BOTH),
    _rate("of FastAPI on uvicorn", "fastapi", 3.5, _BOTH),
    Goal(
        "requests/s, of the fastest Python peer",
        *(2, True, _ratio(_of("rate", OURS), _fastest())),
        logs=_BOTH,
    ),
    Goal(
        "requests/s over HTTPS, of the fastest Python peer",
        *(3, True, _ratio(_of("rate", OURS, kind=HTTPS), _fastest(HTTPS))),
    ),
    Goal(
        "p50 at 1 connection, of aiohttp's",
        *(1.05, False, _ratio(_of("p50", OURS, 1), _of("p50", "aiohttp", 1))),
    ),
    *(_p99(_PYTHON_P99, level, _python_p99(level)) for level in (64, 512)),
)

#: The goals against other languages.
_OTHER_GOALS = (
    _rate("of Node.js", "node", 1.2, (False,)),
    _rate(_GO, "go", 0.6, (False,)),
    *(
        _rate(f"at {_connections(level)}, {text}", peer, limit, (False,), level)
        for text, peer, limits in (
            (_GO, "go", {1: 1.0, 8: 1.1, 64: 1.6, 512: 1.5, 4096: 1.5}),
            (_NGINX, "nginx", {1: 0.9, 8: 0.9, 64: 1.2, 512: 1.3, 4096: 1.3}),
        )
        for level, limit in limits.items()
    ),
    *(
        _p99(
            "of the lower of Go's and nginx's",
            level,
            _lowest((_of("p99", "go", level), _of("p99", "nginx", level))),
        )
        for level in (1, 8, 64, 512, 4096)
    ),
    Goal(
        "requests/s with a new connection for each, of Go's",
        *(1.2, True, _ratio(_of("rate", OURS, kind=NEW), _of("rate", "go", kind=NEW))),
        saturated=lambda results: results.saturated("go", False, 64, NEW),
    ),
    Goal(
        "requests/s, logged, of Go's, not logged",
        *(1.2, True, _ratio(_of("rate", OURS), _unlogged(_of("rate", "go")))),
        logs=(True,),
        saturated=lambda results: results.saturated("go", False, 64),
    ),
)

#: The goals for CPU time, memory and start.
_COST_GOALS = (
    Goal(
        "CPU per page, of constant bytes' on uvloop",
        *(2.2, False, _ratio(_of("cpu", OURS), _of("cpu", "raw"))),
    ),
    *(
        Goal("memory at 64 connections", limit, False, _of("memory", OURS), " MiB", _BOTH)
        for limit in (45, 36)
    ),
    *(
        Goal("first page after the start", limit, False, _first_pages(OURS), " ms", _BOTH)
        for limit in (300, 120)
    ),
    Goal(
        "first page, of the guide's Flask app's on its own server",
        *(1.0, False, _ratio(_first_pages(OURS), _as_it_runs("flask", _first_pages))),
        logs=_BOTH,
    ),
    Goal(
        "first page, of the earliest of the Python peers'",
        1.0,
        False,
        _ratio(
            _first_pages(OURS), _lowest(_as_it_runs(name, _first_pages) for name in PYTHON_PEERS)
        ),
    ),
)

GOALS = (*_PYTHON_GOALS, *_OTHER_GOALS, *_COST_GOALS)


def table_of(results: Results) -> list[str]:
    """Return the lines that say how many goals hold, and the table of the goals."""
    rows, held, judged = [], 0, 0
    for goal in GOALS:
        cells = []
        for log in _BOTH:
            try:
                values = goal.values(results, log) if log in goal.logs else []
            except Missing:
                cells.append("not measured")
                continue
            if not values:
                cells.append("")
                continue
            judged, held = judged + 1, held + goal.holds(values)
            bound = "at most " if goal.saturated(results) else ""
            mark = "holds" if goal.holds(values) else "**missed**"
            cells.append(f"{bound}{shown(spread(values))}{goal.unit}, {mark}")
        limit = f"{'≥' if goal.at_least else '≤'} {goal.limit:g}{goal.unit}"
        rows.append([goal.text, limit, *cells])
    try:
        fastest = f" The fastest Python peer is {BY_NAME[fastest_python(results, False)].title}."
    except Missing:
        fastest = ""
    return [
        f"{held} of {judged} hold.{fastest}",
        "",
        *table(["friendlyhello", "goal", "log off", "log on"], rows),
    ]
