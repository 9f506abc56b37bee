"""What /proc tells of processes (Linux)."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.support.program import Program
from tests.support.waiting import wait_until


def is_running(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    return _stat(pid)[:1] not in ([], ["Z"])


def children(pid: int, *, ended: bool = False) -> set[int]:
    """The children of a process: those that run, or those that have ended and wait to be reaped."""
    found = ((one, _stat(one)[:2]) for one in _every())
    return {one for one, stat in found if stat[1:] == [str(pid)] and (stat[0] == "Z") == ended}


def command(pid: int) -> bytes:
    """The words of a process's command line, each with a zero byte behind; none when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def used(pid: int) -> float:
    return sum(map(int, _stat(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def kill_group(leader: subprocess.Popen[bytes]) -> None:
    """``kill -9`` a process that leads a group, and all that it has forked; wait for their end.

    A Valkey forks for each snapshot, and until the new process has closed them, it has the sockets
    that Valkey listens on, so that the next Valkey could not.
    """
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    for pid in _every():
        if _stat(pid)[2:3] == [str(leader.pid)]:
            wait_until(lambda pid=pid: not is_running(pid))


def held_up(pid: int) -> float:
    """Seconds that a process was ready to run, and the machine had no processor for it.

    Its first thread, that is (proc_pid_schedstat(5)); 0 where the system does not tell.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


#: Seconds in which a server with nothing to finish is gone: the contract's one, and as much again
#: for a machine that does much besides.
SOON = 2.0


def seconds_to_stop(server: Program, signum: int = signal.SIGTERM, status: int = 0) -> float:
    """Stop a program, and return how long it took, had the machine not been busy.

    Of it and its children, that one counts which had to wait the longest for a processor. Its log
    is not read until it has ended.

    :arg status: that it must end with.
    """
    before = {pid: held_up(pid) for pid in (server.process.pid, *children(server.process.pid))}
    held = before.copy()
    begun = time.monotonic()
    server.signal(signum)
    while server.process.poll() is None:
        held = {pid: max(seconds, held_up(pid)) for pid, seconds in held.items()}
        time.sleep(0.005)
    seconds = time.monotonic() - begun - max(held[pid] - before[pid] for pid in held)
    assert server.wait() == status, server.log.decode()
    return seconds


def _every() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    # Not by pathlib, which takes three times as long: tests look often.
    try:  # what follows the name, which may hold anything (proc_pid_stat(5))
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return file.read().rpartition(b") ")[2].decode().split()
    except OSError:
        return []


def processes_in(folder: Path) -> set[int]:
    """The running processes whose working directory is a folder, or was before its removal."""
    places = {str(folder.resolve()), f"{folder.resolve()} (deleted)"}
    found = set()
    for pid in _every():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/cwd") in places:
                found.add(pid)
    return found
