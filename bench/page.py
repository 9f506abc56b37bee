"""Measures a page in process: the CPU time and the instructions of the server's code alone.

Run ``make bench-page``, or ``python -m bench.page`` with the server's own Python. Two loads by
``wrk`` differ by 20 %, two runs of this by 3 %. This sees neither the system's own work nor the
time to wake a process.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import redirect_stderr
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

from bench import off
from bench.visitors import KEPT, Visitors, new_loop

ROOT = Path(__file__).parent.parent

#: How many clients ask at once, as in a load.
CLIENTS = (1, 8, 64)

#: How many pages a timed window has, and on how many pages instructions are counted.
WINDOW, COUNTED = 320, 320

#: Seconds of all windows together. The shortest window is the one that nothing disturbed.
SECONDS = 1.0

#: The environment for counting instructions: sets of strings have the same order in each run.
_ENV = os.environ | {"PYTHONHASHSEED": "0"}


class Page(NamedTuple):
    """The page to measure."""

    kind: str
    """How clients ask for it; see `bench.visitors`."""
    clients: int
    """How many clients ask at once."""
    without: str = ""
    """The trick of `bench.off` that is turned off; "" for none."""


def microseconds(page: Page, seconds: float = SECONDS) -> float:
    """Return the CPU time of a page in microseconds, in the shortest of many short windows.

    :arg seconds: of CPU time, of all windows together.
    """

    async def shortest(visitors: Visitors) -> float:
        times: list[float] = []
        end = time.process_time() + seconds
        while not times or time.process_time() < end:
            began = time.process_time()
            await visitors.ask(WINDOW)
            times.append(time.process_time() - began)
        return min(times) / WINDOW * 1e6

    return float(_visited(page, shortest)[1])


def _visited(
    page: Page, visit: Callable[[Visitors], Coroutine[Any, Any, object]]
) -> tuple[int | None, Any]:
    """Let visitors visit in a forked process, which has the imported modules.

    :return: the process's id, and the result of the visit.
    """

    async def visited() -> object:
        visitors = Visitors(page.kind, page.clients)
        await visitors.begin()
        return await visit(visitors)

    def work() -> None:
        if page.without:
            off.turn_off(page.without)
        # A logged page replaces standard error, where a traceback goes.
        with redirect_stderr(sys.stderr), asyncio.Runner(loop_factory=new_loop) as runner:
            sender.send(runner.run(visited()))

    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=work)
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"bench: the server does not serve this page in process: {page}")
    return child.pid, receiver.recv()


def instructions(pages: Sequence[Page], number: int = COUNTED) -> list[float]:
    """Return how many instructions each page takes, the kernel's left out.

    They are the difference of two runs that differ in nothing but how many pages they serve.

    :arg number: how many pages the instructions of each are counted of.
    :return: none where neither perf nor valgrind counts them.
    """
    runs = [(*page, served) for page in pages for served in (number, 2 * number)]
    command = (sys.executable, "-m", "bench.page", "--count")
    if _by_perf("true"):
        counts = [_by_perf(*command, json.dumps([run])) for run in runs]
        if not all(counts):
            sys.exit("bench: perf counted no instructions of a page")
    elif shutil.which("valgrind"):
        counts = _by_valgrind(*command, json.dumps(runs))
    else:
        return []
    return [(b - a) / number for a, b in zip(counts[::2], counts[1::2], strict=True)]


def _by_perf(*command: str) -> int:
    """Return how many instructions a command takes; 0 if it fails, or if perf cannot count."""
    if not shutil.which("perf"):
        return 0
    done = _run("perf", "stat", "--event=instructions:u", "--field-separator=,", *command)
    match = re.search(r"^(\d+),", done.stderr, re.M)
    return int(match[1]) if match and not done.returncode else 0


def _by_valgrind(*command: str) -> list[int]:
    """Return the instructions of each process whose id a command prints.

    The command starts Python once and forks, because a start takes some seconds in valgrind.
    """
    valgrind = ("valgrind", "--tool=cachegrind", "--cache-sim=no")
    done = _run(*valgrind, "--cachegrind-out-file=/dev/null", *command)
    told = re.findall(r"^==(\d+)== I +refs: +([\d,]+)", done.stderr, re.M)
    counts = {process: int(number.replace(",", "")) for process, number in told}
    if done.returncode or not counts.keys() >= set(done.stdout.split()):
        sys.exit(f"bench: valgrind counted no instructions of a page: {done.stderr}")
    return [counts[process] for process in done.stdout.split()]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=_ENV, capture_output=True, text=True)


def _count(runs: str) -> None:
    """Serve the pages of each run in a process of its own, and print the processes' ids.

    :arg runs: the runs that `instructions` asks for, as JSON.
    """
    for *page, pages in json.loads(runs):
        print(_visited(Page(*page), methodcaller("ask", pages))[0], flush=True)


def main() -> None:
    """Print the cost of a page."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures for a program")
    parser.add_argument("--count", metavar="RUNS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        _count(options.count)
        return
    pages = [Page(KEPT, clients) for clients in CLIENTS]
    times = [microseconds(page) for page in pages]
    counts: Sequence[float | None] = instructions(pages) or [None] * len(pages)
    rows = list(zip(CLIENTS, times, counts, strict=True))
    if options.json:
        names = ("clients", "microseconds", "instructions")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    for clients, took, counted in rows:
        which = f"{clients} client{'s' if clients > 1 else ''}:"
        number = "" if counted is None else f", {counted:,.0f} instructions"
        print(f"{which:12}{took:5.1f} µs{number}")
    if counts[0] is None:
        print("Instructions are not counted: neither perf nor valgrind can count them here.")


if __name__ == "__main__":
    main()
