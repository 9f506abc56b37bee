"""A page in process: served by the server itself, or not at all; its instructions; the tricks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import tricks
from bench.page import Page, instructions
from bench.tricks import WITHOUT, measured, table
from bench.visitors import JSON, KEPT, LOGGED, NEW
from tests.support import ROOT, Patch

#: Counts 7 instructions for a page, and 1,000 for the rest.
PERF = """
import json, sys
runs = [json.loads(one) for one in sys.argv if one.startswith("[[")]
pages = runs[0][0][3] if runs else 0
print(f"{7 * pages + 1000},,instructions:u,5,100.00,,", file=sys.stderr)
"""

#: Counts in processes 100, 101 and so on, whatever they do, 11 for a page and 2,000 for the rest.
VALGRIND = """
import json, sys
for process, run in enumerate(json.loads(sys.argv[-1]), 100):
    print(process)
    print(f"=={process}== \\n=={process}== I   refs:      {11 * run[3] + 2000:,}", file=sys.stderr)
"""

NO_PERF = "import sys; sys.exit('<not supported>,,instructions:u,0,100.00,,')"

WRONG = """
from bench import off
from bench.page import Page, microseconds
from handlers.hello import Greeting
from http1 import HTTPServer

as_html = Greeting.as_html
wrong = {"number": lambda self, number: as_html(self, number + 1), "page": lambda *_: "Hello"}

def turn_off(name):
    if name == "renamed":
        del HTTPServer.handle_connection
    Greeting.as_html = wrong.get(name, as_html)

off.turn_off = turn_off
for name in ("number", "page", "renamed"):
    try:
        microseconds(Page("kept", 4, name), seconds=0.01)
    except SystemExit as error:
        print(error)
"""

MOVED = """
import pkgutil
import handlers.base
from bench import off

for trick, (_, plain) in off.TRICKS.items():
    off.turn_off(trick)
    assert all(pkgutil.resolve_name(name) is value for name, value in plain.items())
del handlers.base._request_id
off.turn_off("request_id")
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


PAGES = [(kind, clients, "", 40) for kind in (KEPT, NEW, LOGGED, JSON) for clients in (1, 8)]


@pytest.mark.parametrize(
    "runs",
    [PAGES, [(*page, 64) for page in WITHOUT.values()]],
    ids=["each kind of page", "without each trick"],
)
def test_the_server_serves_its_pages_in_process(runs: list[tuple[object]]) -> None:
    done = python("-m", "bench.page", "--count", json.dumps(runs))
    assert (done.returncode, done.stderr) == (0, "")
    assert len({*map(int, done.stdout.split())}) == len(runs)


def test_what_is_no_page_of_the_next_visit_is_not_measured() -> None:
    done = python("-c", WRONG)
    for name, line in zip(("number", "page", "renamed"), done.stdout.splitlines(), strict=True):
        assert f"serve this page in process: Page(kind='kept', clients=4, without='{name}'" in line
    assert (done.stderr.count("AssertionError"), done.stderr.count("AttributeError")) == (2, 1)


@pytest.mark.parametrize(
    ("programs", "counted"),
    [
        ({"perf": PERF, "valgrind": VALGRIND}, [7.0, 7.0]),
        ({"perf": NO_PERF, "valgrind": VALGRIND}, [11.0, 11.0]),
        ({}, []),
    ],
)
def test_instructions_are_counted_by_what_can(
    programs: dict[str, str], counted: list[float], tmp_path: Path, monkeypatch: Patch
) -> None:
    for name, text in programs.items():
        program = tmp_path / name
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bench.page._ENV", os.environ | {"PYTHONHASHSEED": "0"})
    assert instructions([Page(KEPT, 1), Page(NEW, 64)]) == counted


def test_a_trick_is_turned_off_and_one_that_has_moved_is_noticed() -> None:
    done = python("-c", MOVED)
    assert done.returncode == 1
    assert "_request_id" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_trick_is_worth_what_a_page_takes_more_without_it(
    is_counted: bool, monkeypatch: Patch
) -> None:
    def cost(page: Page, *_: object) -> float:
        """As if each trick saved a tenth of a page for each letter of its name."""
        return 100.0 + 10 * len(page.without)

    def counted(pages: list[Page], number: int) -> list[float]:
        assert not {page.kind for page in pages} & {LOGGED, JSON}
        return [cost(page) for page in pages] if is_counted else []

    monkeypatch.setattr(tricks, "instructions", counted)
    monkeypatch.setattr(tricks, "microseconds", cost)
    worth = measured()
    assert worth == {name: pytest.approx(len(name) / 10) for name in WITHOUT}
    names = ("eager_start", "checked_headers")
    written = "\n".join(
        ["head", "rule", *(f"| a | b | 9 % of a page | c | `{one}` |" for one in names)]
    )
    assert table(written, worth).splitlines() == [
        *("head", "rule"),
        "| a | b | 150 % of a page | c | `checked_headers` |",
        "| a | b | 110 % of a page | c | `eager_start` |",
    ]
