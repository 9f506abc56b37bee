"""deploy/systemd/, and the one file that it runs, which ``make pyz`` makes."""

import configparser
import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import limits
from config import VERSION, Settings, commit
from tests.support import ROOT
from tests.support.here import refused
from tests.support.program import Start

FOLDER = ROOT / "deploy" / "systemd"
SERVICE, SOCKET = FOLDER / "friendlyhello.service", FOLDER / "friendlyhello.socket"

#: The most that `systemd-analyze security` may give, of 10: "OK" begins below 5, "safe" below 1.
EXPOSURE = 2.0


def values(unit: Path, section: str) -> dict[str, str]:
    """The last value of each name of a section."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(unit)
    return dict(parser[section])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="it is not installed")
def test_systemd_finds_nothing_wrong_with_the_units_and_the_service_hardened() -> None:
    def analyze(*words: str) -> tuple[int, str]:
        done = subprocess.run(("systemd-analyze", *words), capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert analyze("verify", "--man=no", str(SERVICE), str(SOCKET)) == (0, "")
    most = f"--threshold={EXPOSURE * 10:.0f}"
    status, told = analyze("security", "--offline=yes", most, "--no-pager", str(SERVICE))
    assert status == 0, told


def test_the_units_are_those_of_the_settings_and_the_page_says_what_they_do() -> None:
    held = values(SOCKET, "Socket")
    assert held == {"ListenStream": str(Settings().port), "Backlog": str(limits.BACKLOG)}
    service = values(SERVICE, "Service")
    longest = Settings().drain_delay + Settings().grace + 5
    assert float(service["TimeoutStopSec"]) > longest, "the program ends by itself"
    page = (ROOT / "docs" / "systemd.md").read_text()
    program = service["ExecStart"].split()[1]
    assert f"make pyz PYTHON={service['ExecStart'].split()[0]}\n" in page
    assert f"--target-directory={Path(program).parent} dist/{Path(program).name}\n" in page
    assert service["EnvironmentFile"].removeprefix("-") in page
    assert f"/var/lib/{service['StateDirectory']}" in page
    assert f"less than {EXPOSURE:g} of 10" in page
    copied = set(re.findall(r"cp deploy/systemd/(\S+) /etc/systemd/system/", page))
    assert copied == {path.name for path in FOLDER.iterdir()}


@pytest.mark.slow
def test_the_one_file_serves_and_counts_for_who_has_nothing_but_python_and_says_what_is_wrong(
    program: Start, folder: Path, tmp_path: Path
) -> None:
    dist, python, home = (tmp_path / name for name in ("dist", "python", "home"))
    made = ("make", "--assume-old=.venv/installed", "pyz", f"DIST={dist}")
    subprocess.run((*made, f"BIN={Path(sys.executable).parent}"), cwd=ROOT, check=True)
    (script,) = dist.iterdir()
    venv.create(python)  # it has no packages
    home.mkdir()
    clean = ("env", "--ignore-environment", f"HOME={home}", "PATH=/usr/bin:/bin")
    newcomer = (*clean, f"{python}/bin/python")
    for number in (1, 2):
        server = program("--redis-url=embedded:data", python=newcomer, script=script, cwd=folder)
        server.wait_for(b"counter on")
        assert server.visits() == number, "it goes on from where it was"
        assert server.get("/live")[0] == server.get("/openapi.yaml")[0] == 200
        told = json.loads(server.get("/version")[1])
        assert (told["version"], told.get("commit")) == (VERSION, commit())
        server.signal()
        assert server.wait() == 0
    assert [path.name for path in folder.iterdir()] == ["data"]

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        command = (*newcomer, str(script), *flags)
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert run("--version").stdout == f"friendlyhello {VERSION}\n"
    assert refused(run("--port=x"), 2).startswith("--port=x: allowed is ")
    (kind,) = home.glob(".shiv/*/site-packages/MADE_FOR")
    kind.write_text("cpython-39 darwin arm64\n")
    other = run()
    assert (other.returncode, other.stdout) == (1, "")
    said = "made for cpython-39 darwin arm64, and this is .*; make pyz there"
    assert re.fullmatch(f"friendlyhello.pyz: {said}\n", other.stderr)
