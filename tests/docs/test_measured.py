"""The figures of the page on performance are those of the committed run."""

import re
from statistics import median

import pytest

from bench.goals import GOALS
from bench.results import load
from bench.servers import OURS
from bench.text import number
from tests.docs.test_docs import read, rows, tables, text
from tests.docs.test_figures import NUMBERS

PAGE = "docs/performance.md"
RUN = load(read("bench/results.json"))


def ours(figure: str, connections: int = 64) -> float:
    return RUN.median(figure, OURS, False, connections)


def ratio(what: str, log: bool = False) -> float:
    (goal,) = (one for one in GOALS if one.text == f"requests/s{what}")
    return median(goal.values(RUN, log))


NEW = " with a new connection for each, of Go's"

STATED = [
    f"gets one command for {1 / ours('commands'):.0f} visits",
    f"With 8, a batch has {NUMBERS[round(1 / ours('commands', 8))]} visits",
    f"takes {number(ours('cpu'))} µs of CPU time",
    f"uses {ours('memory'):.0f} MiB of memory",
    f"comes {median(RUN.first_pages(OURS, False)) / 1000:.2f} s after the start",
    f"serves {ratio(' over HTTPS, of the fastest Python peer'):.2f} times the pages",
    f"serves {ratio(', of the fastest Python peer', log=True):.1f} times the pages",
    f"at most {ratio(NEW):.1f} times Go",
]


@pytest.mark.parametrize("said", STATED)
def test_the_page_states_the_figures_of_the_run(said: str) -> None:
    assert said in text(PAGE)


def test_the_pages_a_second_are_those_of_the_run() -> None:
    _, *stated = zip(*rows(PAGE, "server", "requests not logged"), strict=True)
    run = [one for one in tables("bench/results.md") if one[0][-1] == "first page, ms"]
    for cells, (_, *measured) in zip(stated, run, strict=True):
        medians = {re.findall(r"[\d,]+", rate)[0] for _, rate, *_ in measured}
        assert set(re.findall(r"[\d,]+", " ".join(cells))) <= medians


@pytest.mark.parametrize(
    ("said", "peer"), [("Go's `net/http`", "Go `net/http` with redigo"), ("nginx with Lua",) * 2]
)
def test_the_ratios_are_those_of_the_run(said: str, peer: str) -> None:
    levels = ("1 connection", *(f"{one} connections" for one in ("8", "64", "512", "4,096")))
    first, _ = (row for row in rows(PAGE, "pages a second, as a multiple of") if row[0] == said)
    assert first[1:] == [f"{ratio(f', at {one}, of {peer}'):.2f}" for one in levels]
