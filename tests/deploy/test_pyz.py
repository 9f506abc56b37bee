"""``make pyz``: one file, run as somebody does who has Python and nothing else."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from config import VERSION, commit
from tests.support import ROOT
from tests.support.here import refused
from tests.support.program import Start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, where there is nothing else."""
    folder = tmp_path_factory.mktemp("dist")
    make = ("make", "--assume-old=.venv/installed", "pyz", f"DIST={folder}")
    done = subprocess.run(
        (*make, f"BIN={Path(sys.executable).parent}"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["friendlyhello.pyz"]
    return folder / "friendlyhello.pyz"


@pytest.fixture
def newcomer(tmp_path: Path) -> tuple[str, ...]:
    """What runs a Python that has no packages, with no variable that anybody set."""
    venv.create(tmp_path / "python")
    home = tmp_path / "home"
    home.mkdir()
    clean = ("env", "--ignore-environment", f"HOME={home}", "PATH=/usr/bin:/bin")
    return (*clean, str(tmp_path / "python/bin/python"))


def test_it_serves_and_counts_in_a_folder_of_its_own(
    program: Start, made: Path, newcomer: tuple[str, ...], folder: Path
) -> None:
    how = {"python": newcomer, "script": made, "cwd": folder}
    for number in (1, 2):
        server = program("--redis-url=embedded:data", **how)
        server.wait_for(b"counter on")
        assert server.visits() == number, "it goes on from where it was"
        assert server.get("/live")[0] == server.get("/openapi.yaml")[0] == 200
        told = json.loads(server.get("/version")[1])
        assert (told["version"], told.get("commit")) == (VERSION, commit())
        server.signal()
        assert server.wait() == 0
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_it_says_in_one_line_what_is_wrong(
    made: Path, newcomer: tuple[str, ...], tmp_path: Path
) -> None:
    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        command = (*newcomer, str(made), *flags)
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert run("--version").stdout == f"friendlyhello {VERSION}\n"
    assert refused(run("--port=x"), 2).startswith("--port=x: allowed is ")
    (kind,) = tmp_path.glob("home/.shiv/*/site-packages/MADE_FOR")
    kind.write_text("cpython-39 darwin arm64\n")
    other = run()
    assert (other.returncode, other.stdout) == (1, "")
    assert re.fullmatch(
        "friendlyhello.pyz: made for cpython-39 darwin arm64, and this is .*; make pyz there\n",
        other.stderr,
    )
