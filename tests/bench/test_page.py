"""A page in process: served by the server itself, or not at all; and its instructions counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from bench.page import CLIENTS, Page, instructions
from bench.results import InProcess, Results, load
from bench.visitors import JSON, KEPT, LOGGED, NEW
from tests.support import ROOT

PATIENCE = 120

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


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("kind", [KEPT, NEW, LOGGED, JSON])
@pytest.mark.parametrize("clients", [1, 8])
def test_the_server_serves_its_pages_in_process(kind: str, clients: int) -> None:
    runs = json.dumps([(kind, clients, "", 40)])
    done = python("-m", "bench.page", "--count", runs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().isdigit()


WRONG = """
import sys
from bench.page import Page, microseconds
from handlers.hello import Greeting
from http1 import HTTPServer

def turn_off(name):
    as_html = Greeting.as_html
    if name == "number":
        Greeting.as_html = lambda self, number: as_html(self, number + 1)
    elif name == "page":
        Greeting.as_html = lambda self, number: "Hello"
    elif name == "answer":
        Greeting.as_html = None
    elif name == "renamed":
        del HTTPServer.handle_connection

microseconds(Page("kept", 4, sys.argv[1]), turn_off, seconds=0.01)
"""


@pytest.mark.parametrize("what", ["number", "page", "answer", "renamed"])
def test_what_is_no_page_of_the_next_visit_is_not_measured(what: str) -> None:
    done = python("-c", WRONG, what)
    assert done.returncode == 1
    assert (
        f"does not serve this page in process: Page(kind='kept', clients=4, without='{what}'"
        in (done.stderr)
    )
    assert "AssertionError" in done.stderr or "AttributeError" in done.stderr


@pytest.mark.parametrize(
    ("programs", "counted"),
    [
        ({"perf": PERF, "valgrind": VALGRIND}, [7.0, 7.0]),
        ({"perf": NO_PERF, "valgrind": VALGRIND}, [11.0, 11.0]),
        ({"valgrind": VALGRIND}, [11.0, 11.0]),
        ({"perf": NO_PERF}, []),
        ({}, []),
    ],
)
def test_instructions_are_counted_by_what_can(
    programs: dict[str, str],
    counted: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in programs.items():
        program = tmp_path / name
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bench.page._ENV", os.environ | {"PYTHONHASHSEED": "0"})
    assert instructions([Page(KEPT, 1), Page(NEW, 64)]) == counted


def test_a_page_in_process_is_in_the_results(tmp_path: Path) -> None:
    found = Results(pages=[InProcess(1, 30.5, 250_123.4), InProcess(64, 15.21, None)])
    found.dump(tmp_path / "results.json")
    assert load((tmp_path / "results.json").read_text()).pages[1] == found.pages[1]
    text = report.figures(found)
    assert "| 1 | 30.5 | 250,123 |" in text
    assert "| 64 | 15.2 | not counted |" in text
    assert not report.in_process(Results())


def test_few_and_many_clients_are_looked_at() -> None:
    assert CLIENTS == (1, 8, 64)
