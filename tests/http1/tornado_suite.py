"""Runs Tornado's own tests with our HTTP server in place of Tornado's.

``python -m tests.http1.tornado_suite asyncio|uvloop MODULE...``; exit status 1 when one fails, or
when one passes that is left out in ``tests/README.md``.
"""

import asyncio
import io
import logging
import os
import re
import sys
import unittest
from collections.abc import Iterator

import tornado.testing
from tornado.ioloop import IOLoop

from http1 import HTTPServer
from tests.support import ROOT
from tests.support.patient_loops import LOOPS, time_of

#: Tornado's own settings for slow machines: seconds for a test, and half a second for a request
#: that is to time out once it has arrived.
SLOW_MACHINE = {"ASYNC_TEST_TIMEOUT": "60", "EMULATION": "1"}

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
    tornado.testing.HTTPServer = HTTPServer  # type: ignore[attr-defined]
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
    asyncio.new_event_loop = LOOPS[loop]  # type: ignore[assignment]
    IOLoop.time = time_of  # type: ignore[method-assign,assignment]
    os.environ.update(SLOW_MACHINE)  # before the tests are imported
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
    return 0 if result.wasSuccessful() and not passing else 1


if __name__ == "__main__":
    sys.exit(main())
