"""The figures of the page on performance are those of the committed run."""

import re

import pytest

from tests.docs.test_docs import rows, tables
from tests.docs.test_figures import text

PAGE, RUN = "docs/performance.md", "bench/results.md"

#: The tables of 64 connections: requests not logged, and logged.
QUIET, LOGGED = (
    {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
    for table in tables(RUN)
    if table[0][:2] == ["server", "requests/s"] and "first page, ms" in table[0]
)
OURS = QUIET["friendlyhello"]


def median(cell: str) -> str:
    """The first figure of a cell; "" when there is none."""
    found = re.search(r"[\d.,]+", cell)
    return found[0] if found else ""


def ratio(goal: str, column: int = 2) -> float:
    """A median of the table of goals: a column 2 of requests not logged, or 3 of those logged."""
    [cell] = {row[column] for row in rows(RUN, "friendlyhello", "goal") if row[0] == goal}
    return float(median(cell))


def per_command(connections: str) -> float:
    """How many visits a command counts."""
    [table] = [
        one for one in tables(RUN) if one[0][:3] == ["server", "1", "8"] and "1.00" in one[1]
    ]
    [row] = [row for row in table if row[0] == "friendlyhello"]
    return 1 / float(median(row[table[0].index(connections)]))


NEW = "requests/s with a new connection for each, of Go's"

STATED = [
    f"gets one command for {per_command('64'):.0f} visits",
    f"With 8, a batch has {['three', 'four', 'five'][round(per_command('8')) - 3]} visits",
    f"takes {median(OURS['CPU, µs per visit'])} µs of CPU time",
    f"uses {float(median(OURS['memory, MiB'])):.0f} MiB of memory",
    f"comes {float(median(OURS['first page, ms'])) / 1000:.2f} s after the start",
    f"serves {ratio('requests/s over HTTPS, of the fastest Python peer'):g} times the pages",
    f"serves {ratio('requests/s, of the fastest Python peer', 3):.1f} times the pages",
    f"at most {ratio(NEW):g} times Go",
]


@pytest.mark.parametrize("said", STATED)
def test_the_page_states_the_figures_of_the_run(said: str) -> None:
    assert said in text(PAGE)


def test_the_pages_a_second_are_those_of_the_run() -> None:
    run = [
        {median(server["requests/s"]) for server in found.values()} | {""}
        for found in (QUIET, LOGGED)
    ]
    for server, *cells in rows(PAGE, "server", "requests not logged"):
        for cell, measured in zip(cells, run, strict=True):
            assert median(cell) in measured, server


@pytest.mark.parametrize(
    ("said", "peer"), [("Go's `net/http`", "Go `net/http` with redigo"), ("nginx with Lua",) * 2]
)
def test_the_ratios_are_those_of_the_run(said: str, peer: str) -> None:
    levels = ("1 connection", "8 connections", "64 connections", "512 connections")
    goals = [f"requests/s, at {level}, of {peer}" for level in (*levels, "4,096 connections")]
    first, _ = (row for row in rows(PAGE, "pages a second, as a multiple of") if row[0] == said)
    assert [float(cell) for cell in first[1:]] == [ratio(goal) for goal in goals]
