"""``python -m audit.hook``: a POST is an audit, and its answer says whether it held."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

from tests.audit.auditing import Speaking, page
from tests.support import ROOT
from tests.support.waiting import PATIENCE


def post(url: str) -> tuple[int, str]:
    """Return the status, and the last line of the report."""
    request = urllib.request.Request(url, data=b'{"name": "web", "phase": "Progressing"}')
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode().splitlines()[-1]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().splitlines()[-1]


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
            url = f"http://127.0.0.1:{found[1]}/"
            assert post(url) == (200, "The audit holds.")
            assert post(url) == (500, "FAILED: 1 visit uncounted, allowed 0.")
            hook.terminate()
            hook.communicate(timeout=PATIENCE)
            assert hook.returncode == 0
        finally:
            hook.kill()
