"""The lines of the log that the pages show are written by the program."""

import ast
import re

import pytest

from tests.docs.test_docs import PAGES, code, read
from tests.test_house import FILES, tree_of

#: What a line of the log begins with, as ``[I 261126 14:26:25 link:209]``.
LOGGED = re.compile(r"\[[IWE] \d{6} [\d:]{8} (\w+):\d+\] (.+)")

#: Letters of a text by which it is known.
LEAST = 8

#: What a page quotes of the log without that, and the module that writes it.
QUOTED = [
    ("docs/names.md", "opening", "is no longer 192.0.2.1: moving to 192.0.2.2"),
    ("docs/names.md", "acceptor", "no room beside 210 connections: those idle longest are closed"),
    ("docs/names.md", "resolver", "redis.example.com: too many look-ups of names hang"),
    ("docs/watching.md", "logs", "log lines were dropped, as standard error did not take them"),
    ("docs/valkey.md", "keeper", "embedded:data: Valkey ended by SIGKILL; starting it again"),
    ("docs/valkey.md", "keeper", "embedded:data: Valkey is back"),
    ("docs/valkey.md", "journal", "held no whole command, as after a power cut, and are cut off"),
    ("docs/guide.md", "resolver", "cannot resolve redis: Name or service not known"),
    ("docs/guide.md", "connector", "no answer from Redis in time"),
    ("docs/guide.md", "delivery", "replicas acknowledged the visits"),
    ("docs/guide.md", "server", "cannot listen on port 80: Permission denied; try --port=4000"),
    ("docs/guide.md", "outage", "counter still off:"),
    *((page, *found) for page in PAGES for found in LOGGED.findall(read(page))),
]


def is_written(module: str, line: str) -> bool:
    """Whether a module has a text that is in this line, filled in with anything."""
    for node in (one for file in FILES if file.stem == module for one in ast.walk(tree_of(file))):
        parts = [""]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = re.split("%[sdgr]", node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "" for one in node.values]
        text = ".*".join(map(re.escape, filter(None, parts)))
        if sum(map(len, parts)) >= LEAST and re.search(text, line):
            return True
    return False


@pytest.mark.parametrize(("page", "module", "line"), QUOTED)
def test_what_a_page_shows_of_the_log_is_written_by_that_module(
    page: str, module: str, line: str
) -> None:
    quoted = [one for block in code(page) for one in block.splitlines() if line in one]
    assert any(is_written(module, one) for one in quoted), quoted
