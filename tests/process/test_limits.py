"""What the system allows no thread: it serves, and says what is wrong."""

import os
import select
import socket
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

from process.standard_error import MOST_WAITING, StandardError
from tests.support import ROOT, Patch
from tests.support.here import refused
from tests.support.processes import SOON, seconds_to_stop
from tests.support.program import Start, environment
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

#: The limit is no limit to root, so it is another user by then, who may still read our files.
ORDINARY = ("setpriv", "--ruid=54321", "--bounding-set=-sys_resource,-sys_admin")

ALONE = (*(ORDINARY if os.getuid() == 0 else ()), "prlimit", "--nproc=1", sys.executable)


def test_an_error_is_told_without_a_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*ALONE, "server.py", f"--port={port}", "--address=127.0.0.1"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    said = refused(done, 1)
    assert said == f"cannot listen on port {port} of 127.0.0.1: Address already in use"


def test_it_serves_and_logs_without_a_thread(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", python=ALONE)
    server.wait_for(b"counter on")
    assert [server.visits() for _ in range(3)] == [1, 2, 3]
    server.wait_for(b"(?s)(200 GET / .*){3}")
    assert seconds_to_stop(server) < SOON
    assert b"stopping" in server.log


def test_without_a_thread_no_line_waits_and_what_was_dropped_is_told(monkeypatch: Patch) -> None:
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
