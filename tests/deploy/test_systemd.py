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

installed = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


def values(unit: Path, section: str) -> dict[str, str]:
    """The last value of each name of a section."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(unit)
    return dict(parser[section])


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("systemd-analyze", *arguments), capture_output=True, text=True, timeout=60
    )


@installed
def test_systemd_finds_nothing_wrong_with_the_units() -> None:
    done = analyze("verify", "--man=no", str(SERVICE), str(SOCKET))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@installed
def test_the_service_is_hardened() -> None:
    threshold = f"--threshold={EXPOSURE * 10:.0f}"
    done = analyze("security", "--offline=yes", threshold, "--no-pager", str(SERVICE))
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_systemd_waits_longer_than_the_program_takes_to_stop() -> None:
    patience = float(values(SERVICE, "Service")["TimeoutStopSec"])
    assert patience > Settings().drain_delay + Settings().grace + 5


def test_the_socket_is_that_of_the_settings() -> None:
    held = values(SOCKET, "Socket")
    assert held == {"ListenStream": str(Settings().port), "Backlog": str(limits.BACKLOG)}


def test_the_page_says_what_the_units_do() -> None:
    page = (ROOT / "docs" / "systemd.md").read_text()
    service = values(SERVICE, "Service")
    program = service["ExecStart"].split()[1]
    assert f"make pyz PYTHON={service['ExecStart'].split()[0]}\n" in page
    assert f"--target-directory={Path(program).parent} dist/{Path(program).name}\n" in page
    assert service["EnvironmentFile"].removeprefix("-") in page
    assert f"/var/lib/{service['StateDirectory']}" in page
    assert f"less than {EXPOSURE:g} of 10" in page
    copied = set(re.findall(r"cp deploy/systemd/(\S+) /etc/systemd/system/", page))
    assert copied == {path.name for path in FOLDER.iterdir()}
