"""What the system allows no thread, and no process: it serves, and says what is wrong."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from process.standard_error import MOST_WAITING, StandardError
from tests.support import ROOT
from tests.support.before import run_before
from tests.support.here import refused
from tests.support.processes import SOON, children, seconds_to_stop
from tests.support.program import NOWHERE, Start, environment
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: The limit is no limit to root, so it is another user by then, who may still read our files.
ORDINARY = ("setpriv", "--ruid=54321", "--bounding-set=-sys_resource,-sys_admin")

ALONE = (*(ORDINARY if os.getuid() == 0 else ()), "prlimit", "--nproc=1", sys.executable)


NO_MORE = "Resource temporarily unavailable"


def refusing(folder: Path, when: str) -> dict[str, str]:
    """Return the variables with which a program may start no process on a condition."""
    code = f"""
import itertools, os, pathlib
def fork(real=os.fork, forks=itertools.count()):
    if {when}:
        raise BlockingIOError(11, {NO_MORE!r})
    return real()
os.fork = fork
"""
    return run_before(folder, code)


def run_alone(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ALONE, "server.py", *flags],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_an_error_is_told_without_a_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(run_alone(f"--port={port}", "--address=127.0.0.1"), 1)
    assert said == f"cannot listen on port {port} of 127.0.0.1: Address already in use"


@pytest.mark.slow
def test_a_valkey_that_may_not_be_started_is_one_line(tmp_path: Path) -> None:
    said = refused(run_alone("--port=0", f"--redis-url=embedded:{tmp_path / 'data'}"), 1)
    assert re.fullmatch(rf"embedded:.*: {NO_MORE}", said)


def test_where_not_all_workers_may_be_started_none_is_left(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "server.py", "--port=0", "--processes=2", NOWHERE],
        cwd=ROOT,
        env=environment(**refusing(tmp_path, "next(forks)")),
        stderr=subprocess.PIPE,  # which ends with the last of its processes
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f"server.py: cannot start 2 processes: {NO_MORE}\n")


def test_it_serves_and_logs_without_a_thread(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", python=ALONE)
    server.wait_for(b"counter on")
    assert [server.visits() for _ in range(3)] == [1, 2, 3]
    server.wait_for(b"(?s)(200 GET / .*){3}")
    assert seconds_to_stop(server) < SOON
    assert b"stopping" in server.log


def test_a_worker_that_died_is_replaced_once_a_process_is_allowed_again(
    program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    none = tmp_path / "none"
    env = refusing(tmp_path, f"pathlib.Path({str(none)!r}).exists()")
    server = program(f"--redis-url={valkey.url}", "--processes=2", **env)
    wait_until(lambda: len(children(server.process.pid)) == 2)
    none.touch()
    os.kill(min(children(server.process.pid)), signal.SIGKILL)
    server.wait_for(f"cannot start a worker, trying again: {NO_MORE}".encode())
    assert wait_until(server.visits) == 1  # also where a busy machine is late to count
    none.unlink()
    wait_until(lambda: len(children(server.process.pid)) == 2)
    assert seconds_to_stop(server) < SOON
    assert server.log.count(b"cannot start a worker") == 1


def test_without_a_thread_no_line_waits_for_a_full_pipe_and_what_was_dropped_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no thread")))
    reading, writing = os.pipe()
    error = StandardError(writing)
    missing: list[int] = []
    error.on_dropped = missing.append
    lines = [b"%04095d\n" % number for number in range(MOST_WAITING // 4096 + 1000)]
    begun = time.monotonic()
    for line in lines:
        error.write(line)
    assert time.monotonic() - begun < PATIENCE
    found = b""
    while select.select([reading], [], [], 0)[0]:
        found += os.read(reading, 65536)
        error.finish()
    assert sum(missing) > 0
    kept = b"".join(lines[: len(lines) - sum(missing)])
    assert found == kept + b"%d lines were dropped\n" % sum(missing)
    for one in (reading, writing):
        os.close(one)
