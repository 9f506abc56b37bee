"""Break the program on purpose, one place at a time, and list what no test notices.

Each comparison, each branch, each constant and each sum of a file is changed in turn, and the tests
of its room run, but for those at length. `python -m tests.mutants --help` says how.
"""

import argparse
import ast
import importlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

#: Seconds after which a test fails: it waits for what a mutant never does.
TEST_TIMEOUT = 30

#: Seconds after which all tests of a mutant have failed: more than those of any room take.
LONGEST = 600

#: The share of mutants that may survive: some change nothing that anybody could notice.
MOST_SURVIVORS = 0.05

#: Plugins of pytest that take long to load, or change what the tests do.
SLOW = ("schemathesis", "anyio", "xdist", "randomly", "cacheprovider")

#: What the tests load, and no mutant changes: it is loaded once for all.
PRELOADED = ("hypothesis", "redis.asyncio", "tornado.web", "lupa.lua51")

#: The tests of what is no room with a folder of tests.
OTHERS = {
    "config": ["tests/test_config.py"],
    "server.py": ["tests/test_server.py", "tests/test_config.py", "tests/process"],
    "limits.py": ["tests/test_limits.py", "tests/test_server.py"],
    "check.py": ["tests/audit"],
}

#: All that is the program's, with the audit.
PROGRAM = [
    *OTHERS,
    *("handlers", "replicas", "counter", "embedded", "http1", "watch", "process", "audit"),
]

#: Each comparison, and what stands for it.
COMPARISONS = {
    "<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"],
    "==": ["!="], "!=": ["=="], "is": ["is not"], "is not": ["is"], "in": ["not in"],
    "not in": ["in"], "~=": ["=="],
}  # fmt: skip
LUA_COMPARISONS = {**COMPARISONS, "==": ["~="]}
SWAPPED = {"and": "or", "or": "and", "+": "-", "-": "+"}


class Mutant(NamedTuple):
    """A file with one place changed."""

    path: str
    start: int
    end: int
    new: str
    source: str

    @property
    def text(self) -> str:
        return self.source[: self.start] + self.new + self.source[self.end :]

    def __str__(self) -> str:
        line = self.source.count("\n", 0, self.start) + 1
        return f"{self.path}:{line}: {self.source[self.start : self.end]!r} -> {self.new!r}"


def mutants(path: str) -> Iterator[Mutant]:
    """Yield all mutants of a file, by its path below the root."""
    source = (ROOT / path).read_text()
    changes = _of_lua(source) if path.endswith(".lua") else _of_python(source)
    for start, end, new in sorted(changes):
        yield Mutant(path, start, end, new, source)


# Python.


def _of_python(source: str) -> Iterator[tuple[int, int, str]]:
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw = source.encode()

    def place(line: int, column: int) -> int:
        return len(raw[: starts[line - 1] + column].decode())

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        first = place(node.lineno, node.col_offset)
        return first, place(node.end_lineno, node.end_col_offset)

    idle = {id(one) for node in ast.walk(tree) for one in _no_values(node)}
    for node in ast.walk(tree):
        if id(node) in idle:
            continue
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            yield from ((*span(node.test), new) for new in ("True", "False"))
        elif isinstance(node, ast.Compare):
            ends = [span(one) for one in (node.left, *node.comparators)]
            for (_, start), (end, _) in pairwise(ends):
                yield from _swapped(source, start, end, COMPARISONS)
        elif isinstance(node, ast.BoolOp):
            ends = [span(one) for one in node.values]
            for (_, start), (end, _) in pairwise(ends):
                yield from _swapped(source, start, end, {k: [v] for k, v in SWAPPED.items()})
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            start, end = span(node.left)[1], span(node.right)[0]
            yield from _swapped(source, start, end, {k: [v] for k, v in SWAPPED.items()})
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
            start, end = span(node.target)[1], span(node.value)[0]
            yield from _swapped(source, start, end, {"+=": ["-="], "-=": ["+="]})
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield span(node)[0], span(node.operand)[0], ""
        elif isinstance(node, ast.Constant):
            yield from ((*span(node), new) for new in _other_values(node.value))


def _no_values(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is no value below a node: docstrings, annotations, parts of f-strings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        yield from (one for one in node.values if isinstance(one, ast.Constant))
    for name in ("annotation", "returns"):
        if (below := getattr(node, name, None)) is not None:
            yield from ast.walk(below)


def _other_values(value: object) -> list[str]:
    if isinstance(value, bool):
        return [repr(not value)]
    if isinstance(value, int | float):
        return [repr(value + 1), *([repr(value - 1)] if value > 0 else [])]
    if isinstance(value, str | bytes):
        return [repr(value + b"x" if isinstance(value, bytes) else value + "x")]
    return []


def _swapped(
    source: str, start: int, end: int, others: dict[str, list[str]]
) -> Iterator[tuple[int, int, str]]:
    found = re.search(r"[a-z]+( [a-z]+)?|[-+=<>!~]+", source[start:end])
    assert found, source[start:end]
    for new in others.get(found[0], []):
        yield start + found.start(), start + found.end(), new


# Lua.

_LUA = re.compile(
    r"--[^\n]*|(?P<string>'[^'\n]*')|(?P<number>\b[0-9][0-9a-fe.]*\b)|(?P<comparison>[<>=~]=|[<>])"
    r"|(?P<swap>\b(?:and|or)\b|[+](?!')|(?<![-'])-(?![-']))|(?P<not>\bnot )"
    r"|\bif (?P<condition>.*?) then\b"
)


def _of_lua(source: str, start: int = 0) -> Iterator[tuple[int, int, str]]:
    for found in _LUA.finditer(source):
        kind = found.lastgroup
        if kind is None:  # a comment
            continue
        first, last = (start + one for one in found.span(kind))
        text = found[kind]
        if kind == "condition":
            yield from ((first, last, new) for new in ("true", "false"))
            yield from _of_lua(text, first)
        elif kind == "string":
            yield first, last, f"{text[:-1]}x'"
        elif kind == "number":
            value = float(text) if "e" in text else int(text)
            yield from ((first, last, repr(one)) for one in (value + 1, value - 1) if one >= 0)
        elif kind == "not":
            yield first, last, ""
        else:
            others = LUA_COMPARISONS[text] if kind == "comparison" else [SWAPPED[text]]
            yield from ((first, last, new) for new in others)


# Running.


def _tests_of(path: str) -> list[str]:
    """Return the tests of the room that a file is in."""
    room = Path(path).parts[0]
    return OTHERS.get(room, [f"tests/{room}"])


def _start(mutant: Mutant, folder: Path, tests: list[str]) -> int:
    """Run the tests in a copy of the program with the mutant in it; return the process's id."""
    (folder / mutant.path).write_text(mutant.text)
    if pid := os.fork():
        return pid
    status = 1
    # Where a test hangs after its time, as a fixture may, all of it has failed.
    hangs = threading.Timer(LONGEST, os._exit, (status,))
    hangs.daemon = True
    hangs.start()
    try:
        status = _run(folder, tests)
    finally:
        os._exit(status)  # nothing of the parent's is for this process to end


def _run(folder: Path, tests: list[str]) -> int:
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    for name in [one for one in sys.modules if one.split(".")[0] == "tests"]:
        del sys.modules[name]  # they are the copy's
    sys.path[:] = [str(folder), *(one for one in sys.path if one not in ("", str(ROOT)))]
    without = (f"-pno:{name}" for name in SLOW)
    loaded = "-Wignore::pytest.PytestAssertRewriteWarning"  # before pytest's own time
    return int(
        pytest.main(["-x", "-mnot slow", loaded, *without, f"--timeout={TEST_TIMEOUT}", *tests])
    )


def _copy(folder: Path) -> Path:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def survivors(chosen: list[Mutant], tests: list[str] | None, jobs: int) -> Iterator[Mutant]:
    """Yield those that the tests let pass, as they run side by side.

    :arg tests: those to run, or None for those of each mutant's room.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    sys.dont_write_bytecode = True  # it is told by time and size, which a mutant may share
    running: dict[int, tuple[Mutant, Path]] = {}
    waiting = chosen[::-1]
    with tempfile.TemporaryDirectory() as parent:
        free = [_copy(Path(parent, str(job))) for job in range(jobs)]
        while waiting or running:
            if waiting and free:
                mutant, folder = waiting.pop(), free.pop()
                own = tests or _tests_of(mutant.path)
                running[_start(mutant, folder, own)] = mutant, folder
                continue
            pid, status = os.wait()
            mutant, folder = running.pop(pid)
            (folder / mutant.path).write_text(mutant.source)
            free.append(folder)
            if os.waitstatus_to_exitcode(status) == 0:
                yield mutant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "files",
        nargs="*",
        default=PROGRAM,
        metavar="FILE",
        help="Python or Lua, or a room of it (default: the program)",
    )
    parser.add_argument("--tests", nargs="+", metavar="TEST", help="(default: the room's tests)")
    parser.add_argument("--number", type=int, help="so many mutants (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at once")
    parser.add_argument("--list", action="store_true", help="list the mutants, and run nothing")
    options = parser.parse_args()
    paths = [
        str(path.relative_to(ROOT))
        for name in options.files
        for one in [ROOT / name]
        for path in (_sources(one) if one.is_dir() else [one])
    ]
    chosen = [mutant for path in paths for mutant in mutants(path)]
    if options.number is not None and options.number < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.number)
    if options.list:
        print("\n".join(map(str, chosen)))
        return 0
    found = 0
    for mutant in survivors(chosen, options.tests, options.jobs):
        found += 1
        print(f"survives: {mutant}", flush=True)
    print(f"{len(chosen)} mutants, {found} survive")
    return int(found > MOST_SURVIVORS * len(chosen))


def _sources(room: Path) -> list[Path]:
    return sorted([*room.rglob("*.py"), *room.rglob("*.lua")])


if __name__ == "__main__":
    sys.exit(main())
