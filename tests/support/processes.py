"""What /proc tells of processes (Linux)."""

import contextlib
import os
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    return _stat(pid)[:1] not in ([], ["Z"])


def children(pid: int) -> set[int]:
    """The running children of a process."""
    every = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return {one for one in every if _stat(one)[1:2] == [str(pid)] and is_running(one)}


def _stat(pid: int) -> list[str]:
    try:  # what follows the name, which may hold anything (proc_pid_stat(5))
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def processes_in(folder: Path) -> set[int]:
    """The running processes whose working directory is a folder, or was before its removal."""
    places = {str(folder.resolve()), f"{folder.resolve()} (deleted)"}
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd") in places:
                found.add(int(entry.name))
    return found
