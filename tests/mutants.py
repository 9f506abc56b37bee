"""Break the program on purpose, one place at a time, and list what no test notices.

Each comparison, each branch, each constant and each sum of a file is changed in turn, and the tests
of its room run, but for those at length. Sentences are left alone: a reader checks them, no test.
`python -m tests.mutants --help` says how.
"""

import argparse
import ast
import contextlib
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

#: Seconds after which a test fails: it waits for what a mutant never does.
TEST_TIMEOUT = 30

#: Seconds after which all tests of a mutant have failed: more than those of any room take.
LONGEST = 240

#: The share of mutants that may survive: some change nothing that anybody could notice.
MOST_SURVIVORS = 0.05

#: A larger number is a limit or a time, and not an index or a count.
SMALL = 10

#: The variable by which the processes of a mutant's tests are known.
MARK = "FRIENDLYHELLO_MUTANT"

#: Plugins of pytest that take long to load, or change what the tests do.
WITHOUT = ("-pno:schemathesis", "-pno:anyio", "-pno:xdist", "-pno:randomly", "-pno:cacheprovider")

#: The docs say many of the program's numbers, and this test looks at each.
FIGURES = "tests/docs/test_figures.py"

#: The tests of what has more, or other ones, than a folder of tests.
OTHERS = {
    "config": "tests/test_config.py tests/test_commit.py tests/process/test_tls.py",
    "counter": "tests/counter tests/watch/test_metrics.py tests/replicas/test_figures.py"
    " tests/faults/test_moves.py tests/faults/test_names.py",
    "http1": "tests/http1 tests/test_server.py tests/handlers/test_refusals.py"
    " tests/process/test_tls.py",
    "server.py": "tests/test_server.py tests/test_config.py tests/process tests/handlers",
    "process": "tests/process tests/handlers/test_sick_replica.py"
    " tests/watch/test_standard_error.py",
    "limits.py": "tests/test_limits.py tests/test_server.py",
    "check.py": "tests/audit",
    "handlers": "tests/handlers tests/watch/test_metrics.py",
    "replicas": "tests/replicas tests/test_server.py",
}

#: All that is the program's, with the audit.
PROGRAM = [*OTHERS, "embedded", "watch", "audit"]

#: Each operator, and what stands for it.
SWAPPED: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn], ast.NotIn: [ast.In],
    ast.And: [ast.Or], ast.Or: [ast.And], ast.Add: [ast.Sub], ast.Sub: [ast.Add],
}  # fmt: skip
LUA_SWAPPED = {
    "<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"], "==": ["~="],
    "~=": ["=="], "and": ["or"], "or": ["and"], "+": ["-"], "-": ["+"],
}  # fmt: skip


class Mutant(NamedTuple):
    """A file with one place changed."""

    path: str
    line: int
    old: str
    new: str
    text: str

    def __str__(self) -> str:
        old, new = (one.partition("\n")[0] for one in (self.old, self.new))
        return f"{self.path}:{self.line}: {old} -> {new}"


def mutants(path: str) -> Iterator[Mutant]:
    """Yield all mutants of a file, by its path below the root."""
    source = (ROOT / path).read_text()
    if path.endswith(".lua"):
        for start, end, new in _of_lua(source):
            line, old = source.count("\n", 0, start) + 1, source[start:end]
            yield Mutant(path, line, old, new, source[:start] + new + source[end:])
        return
    tree = ast.parse(source)
    for node, name, other in _of_python(tree):
        before, old = getattr(node, name), ast.unparse(node)
        setattr(node, name, other)
        yield Mutant(path, node.lineno, old, ast.unparse(node), ast.unparse(tree))
        setattr(node, name, before)


def _of_python(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, str, object]]:
    """Yield each node that may be changed, with the name and the value of what is changed in it."""
    idle = {id(one) for node in ast.walk(tree) for one in _no_values(node)}
    for node in ast.walk(tree):
        if id(node) in idle:
            continue
        match node:
            case ast.If() | ast.While() | ast.IfExp():
                yield from ((node, "test", ast.Constant(value)) for value in (True, False))
            case ast.Compare(ops=ops):
                for place, op in enumerate(ops):
                    for other in SWAPPED[type(op)]:
                        yield node, "ops", [*ops[:place], other(), *ops[place + 1 :]]
            case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op):
                yield from ((node, "op", other()) for other in SWAPPED.get(type(op), []))
            case ast.UnaryOp(op=ast.Not()):
                yield node, "operand", ast.UnaryOp(ast.Not(), node.operand)
            case ast.Constant(value=value):
                yield from ((node, "value", other) for other in _other_values(value))


def _no_values(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is no value below a node: docstrings, annotations, parts of f-strings, exports."""
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        yield from ast.walk(node.value)  # ruff looks at them
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        yield from (one for one in node.values if isinstance(one, ast.Constant))
    for name in ("annotation", "returns"):
        if (below := getattr(node, name, None)) is not None:
            yield from ast.walk(below)


def _other_values(value: object) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from _other_numbers(value)
    elif isinstance(value, str) and value.count(" ") < 2:
        yield value[:-1] + ("x" if value[-1:] != "x" else "y")
    elif isinstance(value, bytes):
        yield value[:-1] + (b"x" if value[-1:] != b"x" else b"y")


def _other_numbers(value: float) -> list[float]:
    """Return what stands for a number that is not negative: a limit moved by one hurts nobody."""
    others = [2 * value, value // 2] if value > SMALL else [value + 1, value - 1]
    return [one for one in others if one >= 0]


_LUA = re.compile(
    r"--[^\n]*|(?P<string>'[^'\n]*')|(?P<number>\b[0-9][0-9a-fe.]*\b)|(?P<comparison>[<>=~]=|[<>])"
    r"|(?P<swap>\b(?:and|or)\b|[+](?!')|(?<![-'])-(?![-']))|(?P<not>\bnot )"
    r"|\bif (?P<condition>.*?) then\b"
)


def _of_lua(source: str, start: int = 0) -> Iterator[tuple[int, int, str]]:
    """Yield each place that may be changed, and what stands there then."""
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
            yield first, last, f"{text[:-2]}x'" if len(text) > 2 else "'x'"
        elif kind == "number":
            value = float(text) if "e" in text else int(text)
            yield from ((first, last, repr(one)) for one in _other_numbers(value))
        else:
            yield from ((first, last, new) for new in LUA_SWAPPED.get(text, [""]))


def _copy(folder: Path) -> Path:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def _end_all(marked: str) -> None:
    """Kill the processes that a mutant has left: it may have broken what ends them.

    :arg marked: what stands in their environment.
    """
    while found := [pid for pid in Path("/proc").glob("[0-9]*") if _is_marked(pid, marked)]:
        for process in found:  # a mutant may start servers without end
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)


def _is_marked(process: Path, marked: str) -> bool:
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        return f"{marked}\0".encode() in (process / "environ").read_bytes()
    return False


def survivors(chosen: list[Mutant], tests: list[str] | None, jobs: int) -> Iterator[Mutant]:
    """Yield those that the tests let pass, as they run side by side.

    :arg tests: those to run, or None for those of each mutant's room.
    """
    pytest = [sys.executable, "-m", "pytest", "-x", "-mnot slow", *WITHOUT]
    # Bytecode is told by time and size, which a mutant may share.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    free: queue.Queue[Path] = queue.Queue()

    def passes(mutant: Mutant) -> bool:
        folder, room = free.get(), Path(mutant.path).parts[0]
        (folder / mutant.path).write_text(mutant.text)
        own = tests or [*OTHERS.get(room, f"tests/{room}").split(), FIGURES]
        run = [*pytest, f"--timeout={TEST_TIMEOUT}", *own]
        marked = {**environment, MARK: str(folder)}
        try:
            done = subprocess.run(run, cwd=folder, env=marked, capture_output=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:  # a fixture hangs, which no test's time ends
            return False
        finally:
            _end_all(f"{MARK}={folder}")
            shutil.copy(ROOT / mutant.path, folder / mutant.path)
            free.put(folder)
        # A mutant may end pytest itself, with status 0.
        return done.returncode == 0 and b" passed" in done.stdout

    with tempfile.TemporaryDirectory() as parent, ThreadPoolExecutor(jobs) as pool:
        for job in range(jobs):
            free.put(_copy(Path(parent, str(job))))
        for mutant, is_alive in zip(chosen, pool.map(passes, chosen), strict=True):
            if is_alive:
                yield mutant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    add = parser.add_argument
    what = "Python or Lua, or a room of it (default: the program)"
    add("files", nargs="*", default=PROGRAM, metavar="FILE", help=what)
    add("--tests", nargs="+", metavar="TEST", help="(default: the room's tests)")
    add("--number", type=int, help="so many mutants (default: all)")
    add("--seed", type=int, default=0, help="which ones (default: 0)")
    add("--jobs", type=int, default=os.cpu_count(), help="at once")
    add("--list", action="store_true", help="list the mutants, and run nothing")
    options = parser.parse_args()
    chosen = [
        mutant
        for name in options.files
        for file in [ROOT / name, *sorted((ROOT / name).rglob("*"))]
        if file.suffix in (".py", ".lua")
        for mutant in mutants(str(file.relative_to(ROOT)))
    ]
    if options.number is not None and options.number < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.number)
    if options.list:
        print(*chosen, sep="\n")
        return 0
    found = 0
    for mutant in survivors(chosen, options.tests, options.jobs):
        found += 1
        print(f"survives: {mutant}", flush=True)
    print(f"{len(chosen)} mutants, {found} survive")
    return int(found > MOST_SURVIVORS * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
