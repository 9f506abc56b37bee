"""deploy/systemd/: what systemd's own tool says of it, and what the program says."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import limits
from config import Settings
from tests.support import ROOT

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
