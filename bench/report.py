"""results.md: the goals, the figures, and what changed since the committed ones."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.results import (
    WATCHED,
    Results,
    Spread,
    lowest,
    moved,
    ratios,
    same_machine,
    spread,
)
from bench.servers import BY_NAME, OURS, SERVERS

#: The Python servers that a user would pick instead.
PYTHON_PEERS = tuple(server.name for server in SERVERS if server.python and server.name != OURS)


class Missing(LookupError):
    """A figure that was not measured."""


@dataclass(frozen=True)
class Goal:
    """A promise about the figures, judged by the median over the rounds."""

    text: str
    limit: float
    at_least: bool
    values: Callable[[Results, bool], list[float]]
    """The figure of each round, with the log off or on; raises `Missing`."""
    saturated: Callable[[Results], bool] = lambda results: False
    """Whether the load may have kept the other side back, so that a ratio is an upper bound."""
    unit: str = ""
    logs: tuple[bool, ...] = (False,)
    """Without a log, with one, or both: like is compared with like."""

    def holds(self, values: Sequence[float]) -> bool:
        """Whether the median keeps the promise."""
        median = spread(values).median
        return median >= self.limit if self.at_least else median <= self.limit


def _figures(
    results: Results, figure: str, server: str, log: bool, connections: int
) -> list[float]:
    if not (found := results.figures(figure, server, log, connections)):
        raise Missing
    return found


def _rate_goal(text: str, peer: str, limit: float, logs: tuple[bool, ...]) -> Goal:
    def values(results: Results, log: bool) -> list[float]:
        theirs = fastest_python(results, log) if peer == "python" else peer
        return ratios(
            _figures(results, "rate", OURS, log, 64), _figures(results, "rate", theirs, log, 64)
        )

    def saturated(results: Results) -> bool:
        return results.saturated(peer, logs[0], 64)

    return Goal(f"requests/s, {text}", limit, True, values, saturated, " ×", logs)


def fastest_python(results: Results, log: bool) -> str:
    """Name the Python peer that answers most at 64 connections."""
    rates = {
        name: spread(figures).median
        for name in PYTHON_PEERS
        if (figures := results.figures("rate", name, log, 64))
    }
    if not rates:
        raise Missing
    return max(rates, key=lambda name: rates[name])


def _p50_goal(results: Results, log: bool) -> list[float]:
    return ratios(
        _figures(results, "p50", OURS, log, 1), _figures(results, "p50", "aiohttp", log, 1)
    )


def _p99_goal(connections: int) -> Goal:
    def values(results: Results, log: bool) -> list[float]:
        every = [
            figures
            for name in PYTHON_PEERS
            for own in (False, True)  # Flask's own server always logs
            if (figures := results.figures("p99", name, own, connections))
            and own == next(iter(BY_NAME[name].variants))
        ]
        if not every:
            raise Missing
        return ratios(_figures(results, "p99", OURS, log, connections), lowest(every))

    text = f"p99 at {connections} connections, of the lowest of the Python peers'"
    return Goal(text, 1.0, False, values, unit=" ×")


def _memory_goal(results: Results, log: bool) -> list[float]:
    return _figures(results, "memory", OURS, log, 64)


def _start_goal(results: Results, log: bool) -> list[float]:
    if not (found := results.first_pages(OURS, log)):
        raise Missing
    return found


def _start_ratio(results: Results, log: bool) -> list[float]:
    if not (theirs := results.first_pages("flask", True)):
        raise Missing
    return ratios(_start_goal(results, log), theirs)


_BOTH = (False, True)
GOALS = (
    _rate_goal("of the guide's Flask app on its own server", "flask", 10, (True,)),
    _rate_goal("of plain Tornado with `redis.asyncio`", "tornado", 5, _BOTH),
    _rate_goal("of FastAPI on uvicorn", "fastapi", 3.5, _BOTH),
    _rate_goal("of the fastest Python peer", "python", 2, _BOTH),
    _rate_goal("of Node.js", "node", 1.2, (False,)),
    _rate_goal("of Go `net/http` with redigo", "go", 0.6, (False,)),
    Goal("p50 at 1 connection, of aiohttp's", 1.05, False, _p50_goal, unit=" ×"),
    _p99_goal(64),
    _p99_goal(512),
    Goal("memory at 64 connections", 45, False, _memory_goal, unit=" MiB", logs=_BOTH),
    Goal("first page after the start", 300, False, _start_goal, unit=" ms", logs=_BOTH),
    Goal(
        "first page, of the guide's Flask app's on its own server",
        *(1.0, False, _start_ratio),
        unit=" ×",
        logs=_BOTH,
    ),
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table; all columns but the first are figures."""
    head = list(head)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def number(value: float) -> str:
    """Write a figure with three digits at least."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def shown(found: Spread) -> str:
    """Write a median, with the lowest and the highest."""
    if not found.width:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def goals(results: Results) -> list[str]:
    """Return the table of the goals, and how many hold."""
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


def _measured(results: Results, log: bool) -> list[str]:
    """Name the servers measured at 64 connections with or without a log, the fastest first."""
    rates = {
        server.name: spread(figures).median
        for server in SERVERS
        if (figures := results.figures("rate", server.name, log, 64))
    }
    return sorted(rates, key=lambda name: -rates[name])


def _cell(results: Results, figure: str, name: str, log: bool, connections: int) -> str:
    if not (figures := results.figures(figure, name, log, connections)):
        return ""
    bound = "≥ " if figure == "rate" and results.saturated(name, log, connections) else ""
    return bound + shown(spread(figures))


def at_64(results: Results, log: bool) -> list[str]:
    """Return the table of every figure at 64 connections."""
    rows = [
        [
            BY_NAME[name].title,
            *(_cell(results, figure, name, log, 64) for figure in WATCHED),
            shown(spread(starts)) if (starts := results.first_pages(name, log)) else "",
        ]
        for name in _measured(results, log)
    ]
    return table(["server", *WATCHED.values(), "first page, ms"], rows)


def by_connections(results: Results, figure: str) -> list[str]:
    """Return the table of one figure at every number of connections; the main variants."""
    levels = sorted({row.connections for row in results.rows})
    names = {
        name: next(iter(BY_NAME[name].variants))
        for name in (*_measured(results, False), *_measured(results, True))
    }
    rows = [
        [BY_NAME[name].title, *(_cell(results, figure, name, log, level) for level in levels)]
        for name, log in names.items()
    ]
    return table(["server", *map(str, levels)], rows)


def changes(before: Results | None, now: Results) -> list[str]:
    """Return what moved by more than its spread since the committed results."""
    if before is None:
        return ["There are no committed results to compare with."]
    if not same_machine(before, now):
        return ["The committed results are another machine's, so they are not compared with."]
    found = moved(before, now)
    if not found:
        return ["Nothing moved by more than its spread."]
    rows = [[one.what, shown(one.before), shown(one.now)] for one in found]
    return table(["figure", "before", "now"], rows)


def checks(results: Results) -> list[str]:
    """Return what the checks found, and what was not measured."""
    lines = [f"- {problem}" for problem in results.problems] or [
        "Each answer was a 200, and the counter rose by as many as there were answers."
    ]
    missing = [f"- {BY_NAME[name].title}: {why}" for name, why in results.missing.items()]
    return [*lines, *(["", "Not measured:", "", *missing] if missing else [])]


def figures(results: Results) -> list[str]:
    """Return the tables of figures, as printed when not every server was measured."""
    lines = ["## At 64 connections, requests not logged", "", *at_64(results, False), ""]
    lines += ["## At 64 connections, requests logged", "", *at_64(results, True), ""]
    for figure in ("rate", "p50", "p99", "cpu", "commands"):
        title = WATCHED[figure]
        title = title[0].upper() + title[1:]
        lines += [f"## {title}, by connections", "", *by_connections(results, figure), ""]
    return [*lines, "## Checks", "", *checks(results)]


def write(results: Results, before: Results | None) -> str:
    """Return results.md."""
    about = {**results.machine, **results.versions}
    described = ", ".join(f"{name} {value}" for name, value in about.items())
    lines = [
        "# Results",
        "",
        f"`make bench` wrote this. {described}.",
        "",
        "The server has one core to itself, load and Redis the others. "
        f"Rounds: {results.rounds}, of {results.seconds:g} s a measurement. Shown is the median, "
        "and in brackets the lowest and the highest. Ratios are of one round each. "
        "≥: the load's busiest core was busy for more than 90 % of the time, so the server "
        "might do more. Commands are INCR and INCRBY, of which friendlyhello's script has one.",
        "",
        "![Requests per second, and latency](results.svg)",
        "",
        "## Goals",
        "",
        *goals(results),
        "",
        *figures(results),
        "",
        "## Moved since the committed results",
        "",
        *changes(before, results),
    ]
    return "\n".join(lines) + "\n"
