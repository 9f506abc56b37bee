"""results.md: the goals, the figures, and what changed since the committed ones."""

from bench import goals
from bench.results import HTTPS, KEPT, NEW, OPEN, WATCHED, Results, moved, spread
from bench.servers import BY_NAME
from bench.text import cell, number, shown, table


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def at_64(results: Results, log: bool) -> list[str]:
    """Return the table of every figure at 64 connections."""
    rows = []
    for name in results.ranking(log):
        cells = [cell(results.of(name, log), figure) for figure in WATCHED]
        starts = results.first_pages(name, log)
        rows.append([BY_NAME[name].title, *cells, shown(spread(starts)) if starts else ""])
    return table(["server", *WATCHED.values(), "first page, ms"], rows)


def _by_connections(results: Results, figure: str) -> list[str]:
    """Return the table of one figure at every number of connections, for the main variants."""
    levels = sorted({row.connections for row in results.rows if row.kind == KEPT})
    names = dict.fromkeys((*results.ranking(False), *results.ranking(True)))
    rows = []
    for name in names:
        main = next(iter(BY_NAME[name].variants))
        cells = (cell(results.of(name, main, level), figure) for level in levels)
        rows.append([BY_NAME[name].title, *cells])
    return table(["server", *(f"{level:,}" for level in levels)], rows)


def other_loads(results: Results) -> list[str]:
    """Return the tables of all other loads than kept connections without TLS."""
    lines = []
    figures = ("rate", "p50", "p99", "cpu")
    for title, kind in (
        ("A new connection for each request, 64 at a time", NEW),
        ("HTTPS on 64 connections that are kept", HTTPS),
    ):
        rows = [
            [BY_NAME[name].title, *(cell(results.of(name, False, kind=kind), f) for f in figures)]
            for name in results.ranking(False, kind)
        ]
        head = ["server", *(WATCHED[figure] for figure in figures)]
        lines += _section(title, table(head, rows) if rows else ["Not measured."])
    return [*lines, *_open_loop(results), *_two_processes(results)]


def _in_process(results: Results) -> list[str]:
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
    lines = [
        "The clients and Redis are a few lines of Python, so this is the cost of the server's own "
        "code, in the shortest of many short windows. `make bench-page` prints it.",
        "",
        *table(["clients", "CPU, µs per visit", "instructions per visit"], rows),
    ]
    return _section("A page of friendlyhello in process", lines)


def _open_loop(results: Results) -> list[str]:
    """Return the table of latency when requests come at a fixed rate."""
    due = {row.kind: row.due for row in results.rows if row.kind in OPEN}
    if not due:
        return []
    columns = [(kind, figure) for kind in due for figure in ("p50", "p99", "cpu")]
    rows = [
        [
            BY_NAME[name].title,
            *(cell(results.of(name, False, None, kind), figure) for kind, figure in columns),
        ]
        for name in results.ranking(False)
        if results.of(name, False, None, next(iter(due)))
    ]
    head = [f"{WATCHED[figure]}, at {number(due[kind])}/s" for kind, figure in columns]
    lines = [
        "These requests come at half, and at nine tenths, of the rate that the slowest of the "
        "first three can do. They come even if answers do not. Their latency counts from when they "
        "were due. ≤: the load was busy for more than 90 % of the time, so it may have been late "
        "itself.",
        "",
        *table(["server", *head], rows),
    ]
    return _section("Requests that come at a fixed rate", lines)


def _two_processes(results: Results) -> list[str]:
    """Return the table of one process, and of two processes, each on its own core."""
    if not results.processes:
        return []
    rates: dict[str, dict[int, list[float]]] = {}
    for row in results.processes:
        rates.setdefault(row.server, {}).setdefault(row.processes, []).append(row.rate)
    rows = [
        [BY_NAME[name].title, *(shown(spread(of_name[number])) for number in (1, 2))]
        for name, of_name in rates.items()
    ]
    head = ["requests/s at 512 connections", "one process", "two, each with a core"]
    return _section("Two processes on two cores", table(head, rows))


def changes(before: Results | None, now: Results) -> list[str]:
    """Return the figures that moved by more than their spread since the committed results."""
    if before is None:
        return ["There are no committed results to compare with."]
    if any(before.machine.get(key) != now.machine.get(key) for key in ("cpu", "cores")):
        return ["The committed results are from another machine, so they are not compared."]
    rows = [[what, shown(old), shown(new)] for what, old, new in moved(before, now)]
    return (
        table(["figure", "before", "now"], rows)
        if rows
        else ["Nothing moved by more than its spread."]
    )


def differences(before: Results | None, now: Results) -> list[str]:
    """Return the versions and the servers in which this run differs from the committed one."""
    if before is None:
        return []
    found = [
        f"{name} {now.versions.get(name, 'is missing')} instead of {version}"
        for name, version in before.versions.items()
        if now.versions.get(name) != version
    ]
    found += [f"{name} is not measured" for name in now.missing if name not in before.missing]
    said = f"The committed results were made with other versions: {', '.join(found)}."
    return [said] if found else []


def _checks(results: Results) -> list[str]:
    """Return the failed checks, and what was not measured."""
    lines = [f"- {problem}" for problem in results.problems] or [
        "Each answer was a 200, and the counter rose by the number of answers."
    ]
    missing = [f"- {BY_NAME[name].title}: {why}" for name, why in results.missing.items()]
    missing += [f"- {sentence}" for sentence in results.skipped]
    return [*lines, *(["", "Not measured:", "", *missing] if missing else [])]


def figures(results: Results) -> list[str]:
    """Return the tables of figures, without the goals and the comparison."""
    lines = _section("At 64 connections, requests not logged", at_64(results, False))
    lines += _section("At 64 connections, requests logged", at_64(results, True))
    for figure in ("rate", "p50", "p99", "cpu", "commands"):
        title = f"{WATCHED[figure][0].upper()}{WATCHED[figure][1:]}, by connections"
        lines += _section(title, _by_connections(results, figure))
    lines += [*_in_process(results), *other_loads(results)]
    return [*lines, *_section("Checks", _checks(results))]


def write(results: Results, before: Results | None) -> str:
    """Return results.md."""
    described = (f"{name} {value}" for name, value in (results.machine | results.versions).items())
    lines = [
        "# Results",
        "",
        f"`make bench` wrote this. {', '.join(described)}.",
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
        *_section("Goals", goals.table_of(results)),
        *figures(results),
        *_section("Moved since the committed results", changes(before, results)),
        *differences(before, results),
    ]
    return "\n".join(lines) + "\n"
