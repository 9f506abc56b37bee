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


@pytest.mark.timeout(240)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("module", TESTS)
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
