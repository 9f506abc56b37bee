"""Tornado's own tests pass on our HTTP server, but for the short list of ``tests/README.md``.

``python -m tests.http1.test_tornado_suite asyncio|uvloop MODULE`` runs them; exit status 1 when
others fail than those of the list, or fewer.
"""

import asyncio
import logging
import os
import re
import subprocess
import sys
import unittest
from typing import Any

import pytest
import tornado.testing
from tornado.ioloop import IOLoop

from http1 import HTTPServer
from tests.support import ROOT
from tests.support.patient_loops import LOOPS, time_of

#: Of Tornado 6.6; a suite that shrinks has not been found.
TESTS = {
    "httpserver_test": 77,
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
    [ran] = re.findall(r"^Ran (\d+) tests", suite.stderr, re.M)
    assert int(ran) >= TESTS[module]


#: Tornado's own settings for slow machines: seconds for a test, and half a second for a request
#: that is to time out once it has arrived.
SLOW_MACHINE = {"ASYNC_TEST_TIMEOUT": "60", "EMULATION": "1"}


def main(loop: str, module: str) -> bool:
    """Run the tests of a module; return whether others fail than those that may."""
    asyncio.new_event_loop = LOOPS[loop]
    IOLoop.time = time_of  # type: ignore[method-assign,assignment]
    os.environ.update(SLOW_MACHINE)  # before the tests are imported
    # As Tornado's own runner has it: its tests ask that nothing else is logged.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    tornado.testing.HTTPServer = HTTPServer  # type: ignore[attr-defined]
    suite = unittest.defaultTestLoader.loadTestsFromName(f"tornado.test.{module}")
    tests: Any = sys.modules[f"tornado.test.{module}"]
    if hasattr(tests, "HTTPServer"):
        tests.HTTPServer = HTTPServer
    result = unittest.TextTestRunner().run(suite)
    failed = {test.id().split()[0] for test, _ in result.failures + result.errors}
    listed = (ROOT / "tests" / "README.md").read_text()
    may_fail = re.findall(rf"^\| `({module}\.\w+\.\w+)` \|", listed, re.M)
    if different := failed ^ {f"tornado.test.{one}" for one in may_fail}:
        print("failed, and not listed; or the other way round:", *different, file=sys.stderr)
    return bool(different)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
