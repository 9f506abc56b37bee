"""Runs Tornado's own tests with our HTTP server in place of Tornado's.

``python -m tests.http1.tornado_suite asyncio|uvloop MODULE...``; exit status 1 when one fails, or
when one passes that is left out in ``tests/README.md``.
"""

import asyncio
import io
import logging
import re
import sys
import unittest
from collections.abc import Iterator

import tornado.testing
import uvloop

from http1 import HTTPServer
from tests.support import ROOT

LEFT_OUT = re.findall(
    r"^\| `(\w+_test\.\w+\.\w+)` \|", (ROOT / "tests" / "README.md").read_text(), re.M
)


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        else:
            yield test


def load(modules: list[str]) -> tuple[unittest.TestSuite, unittest.TestSuite]:
    """Return the tests that are to pass, and those that are left out."""
    tornado.testing.HTTPServer = HTTPServer
    names = [f"tornado.test.{module}" for module in modules]
    kept, left_out = unittest.TestSuite(), unittest.TestSuite()
    for test in tests_of(unittest.TestLoader().loadTestsFromNames(names)):
        is_left_out = test.id().removeprefix("tornado.test.") in LEFT_OUT
        (left_out if is_left_out else kept).addTest(test)
    for name in names:
        if hasattr(sys.modules[name], "HTTPServer"):
            sys.modules[name].HTTPServer = HTTPServer  # type: ignore[attr-defined]
    return kept, left_out


def main() -> int:
    loop, *modules = sys.argv[1:]
    if loop == "uvloop":
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # As Tornado's own runner has it: its tests ask that nothing else is logged.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    kept, left_out = load(modules)
    passing = [
        test.id()
        for test in tests_of(left_out)
        if unittest.TextTestRunner(stream=io.StringIO()).run(test).wasSuccessful()
    ]
    if passing:
        print("left out, and passing:", *passing, file=sys.stderr)
    result = unittest.TextTestRunner().run(kept)
    failing = [test for test, _ in result.failures + result.errors if not passes_later(test)]
    return 0 if not failing and not passing else 1


def passes_later(test: unittest.TestCase) -> bool:
    """Whether a test that failed passes by itself: some give a busy machine a tenth of a second."""
    again = unittest.defaultTestLoader.loadTestsFromName(test.id())
    return unittest.TextTestRunner().run(again).wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
