"""``python -m audit.hook``: a POST is an audit, and its answer says whether it held."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.audit.auditing import Answer, page
from tests.support import ROOT
from tests.support.waiting import PATIENCE

Hook = Callable[..., str]


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Start it, and return its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "audit.hook", *arguments],
            cwd=ROOT,
            env=os.environ | {"PORT": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        found = re.search(r"listening on port (\d+)", process.stderr.readline())
        assert found
        return f"http://127.0.0.1:{found[1]}/"

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0


def post(url: str) -> tuple[int, str]:
    request = urllib.request.Request(url, data=b'{"name": "web", "phase": "Progressing"}')
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_an_audit_that_holds_is_200_and_one_that_fails_500(
    hook: Hook, answering: Callable[[Answer], str]
) -> None:
    # The sixth visit, of the second audit, gets no number.
    url = hook(
        answering(lambda n: page(None if n == 6 else n)), "--requests=5", "--max-uncounted=0"
    )
    status, report = post(url)
    assert (status, report.splitlines()[-1]) == (200, "The audit holds.")
    status, report = post(url)
    assert (status, report.splitlines()[-1]) == (500, "FAILED: 1 visit uncounted, allowed 0.")
