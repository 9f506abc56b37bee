"""Tornado's own tests pass on our HTTP server, but for the short list of ``tests/README.md``."""

import re
import subprocess
import sys

import pytest

from tests.support import ROOT

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
        [sys.executable, "-m", "tests.http1.tornado_suite", loop, module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert suite.returncode == 0, suite.stderr
    ran = re.search(r"^Ran (\d+) tests", suite.stderr, re.M)
    assert ran
    assert int(ran[1]) >= TESTS[module]
