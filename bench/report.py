"""results.md: the goals, the figures, and what changed since the committed ones."""

from tornado.template import Template

from bench import goals
from bench.results import KEPT, OPEN, WATCHED, Results, moved, spread
from bench.servers import BY_NAME, HERE
from bench.text import cell, number, shown, table


def at_64(results: Results, log: bool) -> str:
    """Return the table of every figure at 64 connections."""
    rows = []
    for name in results.ranking(log):
        cells = [cell(results.of(name, log), figure) for figure in WATCHED]
        starts = results.first_pages(name, log)
        rows.append([BY_NAME[name].title, *cells, shown(spread(starts)) if starts else ""])
    return table(["server", *WATCHED.values(), "first page, ms"], rows)


def by_connections(results: Results, figure: str) -> str:
    """Return the table of one figure at every number of connections, for the main variants."""
    levels = sorted({row.connections for row in results.rows if row.kind == KEPT})
    names = dict.fromkeys((*results.ranking(False), *results.ranking(True)))
    rows = []
    for name in names:
        server = BY_NAME[name]
        cells = (cell(results.of(name, server.always_logs, at), figure) for at in levels)
        rows.append([server.title, *cells])
    return table(["server", *(f"{level:,}" for level in levels)], rows)


def of_kind(results: Results, kind: str) -> str:
    """Return the table of another kind of load at 64 connections; "" when it was not measured."""
    figures = ("rate", "p50", "p99", "cpu")
    rows = [
        [BY_NAME[name].title, *(cell(results.of(name, False, kind=kind), f) for f in figures)]
        for name in results.ranking(False, kind)
    ]
    return table(["server", *(WATCHED[figure] for figure in figures)], rows) if rows else ""


def in_process(results: Results) -> str:
    """Return the table of a page's cost without the system."""
    rows = []
    for one in results.pages:
        counted = "not counted" if one.instructions is None else number(one.instructions)
        rows.append([f"{one.clients}", number(one.microseconds), counted])
    return table(["clients", "CPU, µs per visit", "instructions per visit"], rows)


def at_fixed_rates(results: Results) -> str:
    """Return the table of latency when requests come at a fixed rate; "" when not measured."""
    due = {row.kind: row.due for row in results.rows if row.kind in OPEN}
    columns = [(kind, figure) for kind in due for figure in ("p50", "p99", "cpu")]
    rows = []
    for name in results.ranking(False):
        measured = {kind: results.of(name, False, None, kind) for kind in due}
        if any(measured.values()):
            cells = (cell(measured[kind], figure) for kind, figure in columns)
            rows.append([BY_NAME[name].title, *cells])
    head = [f"{WATCHED[figure]}, at {number(due[kind])}/s" for kind, figure in columns]
    return table(["server", *head], rows) if rows else ""


def two_processes(results: Results) -> str:
    """Return the table of one process, and of two processes, each on its own core."""
    rates: dict[str, dict[int, list[float]]] = {}
    for row in results.processes:
        rates.setdefault(row.server, {}).setdefault(row.processes, []).append(row.rate)
    rows = [
        [BY_NAME[name].title, *(shown(spread(of_name[number])) for number in (1, 2))]
        for name, of_name in rates.items()
    ]
    return table(["requests/s at 512 connections", "one process", "two, each with a core"], rows)


def changes(before: Results | None, now: Results) -> str:
    """Return the figures that moved by more than their spread since the committed results."""
    if before is None:
        return "There are no committed results to compare with."
    if any(before.machine.get(key) != now.machine.get(key) for key in ("cpu", "cores")):
        return "The committed results are from another machine, so they are not compared."
    if rows := [[what, shown(old), shown(new)] for what, old, new in moved(before, now)]:
        return table(["figure", "before", "now"], rows)
    return "Nothing moved by more than its spread."


def differences(before: Results | None, now: Results) -> str:
    """Return in which versions and servers this run differs from the committed one; "" for none."""
    if before is None:
        return ""
    found = [
        f"{name} {now.versions.get(name, 'is missing')} instead of {version}"
        for name, version in before.versions.items()
        if now.versions.get(name) != version
    ]
    found += [f"{name} is not measured" for name in now.missing if name not in before.missing]
    said = f"The committed results were made with other versions: {', '.join(found)}."
    return said if found else ""


def checks(results: Results) -> str:
    """Return the failed checks, and what was not measured."""
    lines = [f"- {problem}" for problem in results.problems] or [
        "Each answer was a 200, and the counter rose by the number of answers."
    ]
    missing = [f"- {BY_NAME[name].title}: {why}" for name, why in results.missing.items()]
    missing += [f"- {sentence}" for sentence in results.skipped]
    return "\n".join([*lines, *(["", "Not measured:", "", *missing] if missing else [])])


def _page(results: Results, **more: str) -> str:
    page = Template((HERE / "results.txt").read_text(), autoescape=None)
    return page.generate(results=results, **more).decode()


def figures(results: Results) -> str:
    """Return the tables of figures, without the goals and the comparison."""
    return _page(results, goals="")


def write(results: Results, before: Results | None) -> str:
    """Return results.md: `results.txt`, with the figures of a run."""
    about = results.machine | results.versions
    return _page(
        results,
        described=", ".join(f"{name} {value}" for name, value in about.items()),
        goals=goals.table_of(results),
        changes=changes(before, results),
        differences=differences(before, results),
    )
