"""The live page's HTML, by html-validate."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.live import Start
from tests.support.program import Program

Wrong = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Wrong:
    """Say what is wrong with a page."""
    if shutil.which("npm") is None:
        pytest.fail("npm is missing: apt-get install npm", pytrace=False)
    folder = tmp_path_factory.mktemp("npm") / "validate"
    shutil.copytree(Path(__file__).parent / "validate", folder)

    def run(*command: str, given: str = "") -> str:
        done = subprocess.run(
            command, cwd=folder, input=given, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("npm", "ci", "--no-audit", "--no-fund")
    return lambda page: json.loads(run("node", "validate.js", given=page))


@pytest.fixture
def server(program: Start) -> Program:
    return program("--redis-url=unix:/nowhere/redis.sock")


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("last", ["5m", "1d"])
def test_nothing_is_wrong_with_the_live_page(
    last: str, language: str, server: Program, wrong: Wrong
) -> None:
    assert wrong(server.get(f"/live?last={last}", Accept_Language=language)[1]) == []


def test_a_mistake_is_found(server: Program, wrong: Wrong) -> None:
    page = server.get("/live")[1]
    assert "no-implicit-button-type" in "".join(
        wrong(page.replace('<button type="button"', "<button"))
    )


def test_the_page_describes_itself(server: Program) -> None:
    assert '<meta name="description" content="Visits as' in server.get("/live")[1]
