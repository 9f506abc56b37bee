"""The processes of an embedded Valkey, and its files."""

import subprocess
from pathlib import Path

from tests.support.processes import processes_in


def valkey_of(data: Path) -> int:
    """Return the process id of the Valkey that serves a folder."""
    return int((data / "run" / "valkey.lock").read_text() or 0)


def keeper_of(data: Path) -> int:
    """Return the process id of what starts Valkey, and ends it when the server is gone."""
    (keeper,) = processes_in(data) - {valkey_of(data)}
    return keeper


def part_of(data: Path, ending: str) -> Path:
    """Return the one file of the data whose name has an ending, as ``.base.rdb``."""
    (part,) = (data / "appendonlydir").glob(f"*{ending}")
    return part


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a program that could not start wrote."""
    (line,) = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (1, "")
    assert line.startswith("server.py: ")
    return line
