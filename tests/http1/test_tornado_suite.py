"""Tornado's own tests pass on our HTTP server, but for the short list of ``tests/README.md``.

``python -m tests.http1.test_tornado_suite asyncio|uvloop MODULE`` runs them; exit status 1 when one
fails, or when one passes that is left out.
"""

import asyncio
import io
import logging
import os
import re
import subprocess
import sys
import unittest
from collections.abc import Iterator
from typing import Any

import pytest
import tornado.testing
from tornado.ioloop import IOLoop

from http1 import HTTPServer
from tests.support import ROOT
from tests.support.patient_loops import LOOPS, time_of

#: Of Tornado 6.6; a suite that shrinks has not been found.
TESTS = {
    "httpserver_test": 68,
    "web_test": 276,
    "simple_httpclient_test": 139,
    "http1connection_test": 7,
    "websocket_test": 70,
}
CLIENT = "simple_httpclient_test"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("module", "loop"),
    [
        # On the loop that the program runs on, but for the tests of a client, which take long.
        *((name, "uvloop") for name in TESTS if name != CLIENT),
        *(pytest.param(name, "asyncio", marks=pytest.mark.slow) for name in TESTS),
        pytest.param(CLIENT, "uvloop", marks=pytest.mark.slow),
    ],
)
def test_tornados_own_tests_pass(module: str, loop: str) -> None:
    suite = subprocess.run(
        [sys.executable, "-m", __name__, loop, module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert suite.returncode == 0, suite.stderr
    ran = re.search(r"^Ran (\d+) tests", suite.stderr, re.M)
    assert ran
    assert int(ran[1]) >= TESTS[module]


#: Tornado's own settings for slow machines: seconds for a test, and half a second for a request
#: that is to time out once it has arrived.
SLOW_MACHINE = {"ASYNC_TEST_TIMEOUT": "60", "EMULATION": "1"}

LEFT_OUT = re.findall(
    r"^\| `(\w+_test\.\w+\.\w+)` \|", (ROOT / "tests" / "README.md").read_text(), re.M
)


def each_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each_of(test)
        else:
            yield test


def load(name: str) -> tuple[unittest.TestSuite, unittest.TestSuite]:
    """Return the tests that are to pass, and those that are left out."""
    tornado.testing.HTTPServer = HTTPServer  # type: ignore[attr-defined]
    kept, left_out = unittest.TestSuite(), unittest.TestSuite()
    for test in each_of(unittest.TestLoader().loadTestsFromName(f"tornado.test.{name}")):
        is_left_out = test.id().removeprefix("tornado.test.") in LEFT_OUT
        (left_out if is_left_out else kept).addTest(test)
    module: Any = sys.modules[f"tornado.test.{name}"]
    if hasattr(module, "HTTPServer"):
        module.HTTPServer = HTTPServer
    return kept, left_out


def main(loop: str, module: str) -> int:
    asyncio.new_event_loop = LOOPS[loop]  # type: ignore[assignment]
    IOLoop.time = time_of  # type: ignore[method-assign,assignment]
    os.environ.update(SLOW_MACHINE)  # before the tests are imported
    # As Tornado's own runner has it: its tests ask that nothing else is logged.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    kept, left_out = load(module)
    passing = [
        test.id()
        for test in each_of(left_out)
        if unittest.TextTestRunner(stream=io.StringIO()).run(test).wasSuccessful()
    ]
    if passing:
        print("left out, and passing:", *passing, file=sys.stderr)
    result = unittest.TextTestRunner().run(kept)
    return 0 if result.wasSuccessful() and not passing else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
