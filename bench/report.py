"""results.md: the goals, the figures, and what changed since the committed ones."""

from bench import goals
from bench.results import (
    HTTPS,
    KEPT,
    NEW,
    OPEN,
    WATCHED,
    Results,
    differs,
    moved,
    same_machine,
    spread,
)
from bench.servers import BY_NAME
from bench.text import number, shown, table


def _cell(
    results: Results,
    figure: str,
    name: str,
    log: bool,
    connections: int | None,
    kind: str = KEPT,
) -> str:
    if not (figures := results.figures(figure, name, log, connections, kind)):
        return ""
    bound = ""
    if results.saturated(name, log, connections, kind):
        # In an open loop, a late load makes its answers late.
        late = kind in OPEN and figure in ("p50", "p99")
        bound = "≥ " if figure == "rate" else "≤ " if late else ""
    return bound + shown(spread(figures))


def at_64(results: Results, log: bool) -> list[str]:
    """Return the table of every figure at 64 connections."""
    rows = [
        [
            BY_NAME[name].title,
            *(_cell(results, figure, name, log, 64) for figure in WATCHED),
            shown(spread(starts)) if (starts := results.first_pages(name, log)) else "",
        ]
        for name in results.ranking(log)
    ]
    return table(["server", *WATCHED.values(), "first page, ms"], rows)


def by_connections(results: Results, figure: str) -> list[str]:
    """Return the table of one figure at every number of connections, for the main variants."""
    levels = sorted({row.connections for row in results.rows if row.kind == KEPT})
    names = {
        name: next(iter(BY_NAME[name].variants))
        for name in (*results.ranking(False), *results.ranking(True))
    }
    rows = [
        [BY_NAME[name].title, *(_cell(results, figure, name, log, level) for level in levels)]
        for name, log in names.items()
    ]
    return table(["server", *(f"{level:,}" for level in levels)], rows)


def other_loads(results: Results) -> list[str]:
    """Return the tables of all other loads than kept connections without TLS."""
    lines = []
    for title, kind in (
        ("A new connection for each request, 64 at a time", NEW),
        ("HTTPS on 64 connections that are kept", HTTPS),
    ):
        names = [
            name for name in results.ranking(False) if _cell(results, "rate", name, False, 64, kind)
        ]
        names.sort(key=lambda name: -results.median("rate", name, False, 64, kind))
        figures = ("rate", "p50", "p99", "cpu")
        rows = [
            [BY_NAME[name].title, *(_cell(results, one, name, False, 64, kind) for one in figures)]
            for name in names
        ]
        head = ["server", *(WATCHED[figure] for figure in figures)]
        lines += [f"## {title}", "", *(table(head, rows) if rows else ["Not measured."]), ""]
    return [*lines, *_open_loop(results), *_two_processes(results)]


def in_process(results: Results) -> list[str]:
    """Return the table of a page's cost without the system."""
    if not results.pages:
        return []
    rows = [
        [
            f"{one.clients}",
            number(one.microseconds),
            "not counted" if one.instructions is None else number(one.instructions),
        ]
        for one in results.pages
    ]
    return [
        "## A page of friendlyhello in process",
        "",
        "The clients and Redis are a few lines of Python, so this is the cost of the server's own "
        "code, in the shortest of many short windows. `make bench-page` prints it.",
        "",
        *table(["clients", "CPU, µs per visit", "instructions per visit"], rows),
        "",
    ]


def _open_loop(results: Results) -> list[str]:
    """Return the table of latency when requests come at a fixed rate."""
    due = {row.kind: row.due for row in results.rows if row.kind in OPEN}
    if not due:
        return []
    rows = [
        [
            BY_NAME[name].title,
            *(
                _cell(results, figure, name, False, None, kind)
                for kind in due
                for figure in ("p50", "p99", "cpu")
            ),
        ]
        for name in results.ranking(False)
        if results.figures("p50", name, False, None, next(iter(due)))
    ]
    head = [
        f"{WATCHED[figure]}, at {number(rate)}/s"
        for rate in due.values()
        for figure in ("p50", "p99", "cpu")
    ]
    return [
        "## Requests that come at a fixed rate",
        "",
        "These requests come at half, and at nine tenths, of the rate that the slowest of the "
        "first three can do. They come even if answers do not. Their latency counts from when they "
        "were due. ≤: the load was busy for more than 90 % of the time, so it may have been late "
        "itself.",
        "",
        *table(["server", *head], rows),
        "",
    ]


def _two_processes(results: Results) -> list[str]:
    """Return the table of one process, and of two processes, each on its own core."""
    if not results.processes:
        return []
    rows = []
    for name in dict.fromkeys(row.server for row in results.processes):
        rates = [
            [row.rate for row in results.processes if (row.server, row.processes) == (name, number)]
            for number in (1, 2)
        ]
        rows.append([BY_NAME[name].title, *(shown(spread(rate)) for rate in rates)])
    head = ["requests/s at 512 connections", "one process", "two, each with a core"]
    return ["## Two processes on two cores", "", *table(head, rows), ""]


def changes(before: Results | None, now: Results) -> list[str]:
    """Return the figures that moved by more than their spread since the committed results."""
    if before is None:
        return ["There are no committed results to compare with."]
    if not same_machine(before, now):
        return ["The committed results are from another machine, so they are not compared."]
    found = moved(before, now)
    if not found:
        return ["Nothing moved by more than its spread."]
    rows = [[one.what, shown(one.before), shown(one.now)] for one in found]
    return table(["figure", "before", "now"], rows)


def differences(before: Results | None, now: Results) -> list[str]:
    """Return the versions in which this run differs from the committed one."""
    if before is None or not (found := differs(before, now)):
        return []
    return [f"The committed results were made with other versions: {', '.join(found)}."]


def checks(results: Results) -> list[str]:
    """Return the failed checks, and what was not measured."""
    lines = [f"- {problem}" for problem in results.problems] or [
        "Each answer was a 200, and the counter rose by the number of answers."
    ]
    missing = [f"- {BY_NAME[name].title}: {why}" for name, why in results.missing.items()]
    missing += [f"- {sentence}" for sentence in results.skipped]
    return [*lines, *(["", "Not measured:", "", *missing] if missing else [])]


def figures(results: Results) -> list[str]:
    """Return the tables of figures, without the goals and the comparison."""
    lines = ["## At 64 connections, requests not logged", "", *at_64(results, False), ""]
    lines += ["## At 64 connections, requests logged", "", *at_64(results, True), ""]
    for figure in ("rate", "p50", "p99", "cpu", "commands"):
        title = WATCHED[figure]
        title = title[0].upper() + title[1:]
        lines += [f"## {title}, by connections", "", *by_connections(results, figure), ""]
    return [*lines, *in_process(results), *other_loads(results), "## Checks", "", *checks(results)]


def write(results: Results, before: Results | None) -> str:
    """Return results.md."""
    about = {**results.machine, **results.versions}
    described = ", ".join(f"{name} {value}" for name, value in about.items())
    lines = [
        "# Results",
        "",
        f"`make bench` wrote this. {described}.",
        "",
        "The server has one core to itself. The load and Redis have the others. "
        f"There were {results.rounds} rounds, and each measurement took {results.seconds:g} s. "
        "A figure is the median over the rounds, with the lowest and the highest in brackets. "
        "A ratio divides figures of the same round. "
        "≥: the load's busiest core was busy for more than 90 % of the time, so the server "
        "might do more. Commands are INCR and INCRBY; friendlyhello's script has one INCRBY.",
        "",
        "![Requests per second, and latency](results.svg)",
        "",
        "## Goals",
        "",
        *goals.table_of(results),
        "",
        *figures(results),
        "",
        "## Moved since the committed results",
        "",
        *changes(before, results),
        "",
        *differences(before, results),
    ]
    return "\n".join(lines) + "\n"
