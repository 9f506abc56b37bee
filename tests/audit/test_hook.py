"""``python -m audit.hook``: a POST is an audit, and its answer says whether it held."""

import contextlib
import os
import re
import subprocess
import sys
from http.client import HTTPConnection

from tests.audit.auditing import Speaking, page
from tests.support import ROOT
from tests.support.waiting import PATIENCE


def post(port: str) -> tuple[int, str]:
    """Return the status, and the last line of the report."""
    with contextlib.closing(HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE)) as client:
        client.request("POST", "/", b'{"name": "web", "phase": "Progressing"}')
        answer = client.getresponse()
        return answer.status, answer.read().decode().splitlines()[-1]


def test_an_audit_that_holds_is_200_and_one_that_fails_500(speaking: Speaking) -> None:
    # The sixth visit, of the second audit, gets no number.
    audited = speaking(lambda n: page(None if n == 6 else n)).url
    with subprocess.Popen(
        [sys.executable, "-m", "audit.hook", audited, "--requests=5", "--max-uncounted=0"],
        cwd=ROOT,
        env=os.environ | {"PORT": "0"},
        stderr=subprocess.PIPE,
        text=True,
    ) as hook:
        try:
            assert hook.stderr is not None
            found = re.search(r"listening on port (\d+)", hook.stderr.readline())
            assert found
            assert post(found[1]) == (200, "The audit holds.")
            assert post(found[1]) == (500, "FAILED: 1 visit uncounted, allowed 0.")
            hook.terminate()
            hook.communicate(timeout=PATIENCE)
            assert hook.returncode == 0
        finally:
            hook.kill()
