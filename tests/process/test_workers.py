"""``--processes``: workers that share the port, count together and end together.

And what is done where the system allows no process, or no thread.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from process import usable_cores
from process.signals import SAME_SIGNAL
from process.standard_error import MOST_WAITING, StandardError
from tests.support import Patch
from tests.support.before import run_before
from tests.support.processes import SOON, children, is_running, seconds_to_stop
from tests.support.program import NOWHERE, Connect, Program, Start, ask, read, run_to_end
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until


def workers_of(server: Program, number: int) -> set[int]:
    """The process ids of a server's workers, when all of them are there and serve."""
    wait_until(lambda: len(children(server.process.pid)) == number)
    counting(server, number or 1)
    return children(server.process.pid)


def counting(server: Program, times: int) -> None:
    """Wait until as many workers as have started since its start have begun to count."""
    server.wait_for(b"(?s)" + b".*".join([b"counter on"] * times))


NO_MORE = "Resource temporarily unavailable"


#: What whoever starts a program may leave to it: a blocked signal, and many descriptors.
INHERITED = """
import os, resource, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
resource.setrlimit(resource.RLIMIT_NOFILE, 2 * resource.getrlimit(resource.RLIMIT_NOFILE)[1:])
for _ in range(1024):
    os.open(os.devnull, os.O_RDONLY)
"""


def refusing(folder: Path, when: str, before: str = "") -> dict[str, str]:
    """Return the variables with which a program may start no process on a condition."""
    code = f"""{before}
import itertools, os, pathlib
def fork(real=os.fork, forks=itertools.count()):
    if {when}:
        os.write(2, b"refused\\n")
        raise BlockingIOError(11, {NO_MORE!r})
    return real()
os.fork = fork
"""
    return run_before(folder, code)


def test_workers_count_together_and_end_with_the_parent(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--access-log=false", PROCESSES="2")
    workers = workers_of(server, 2)
    with ThreadPoolExecutor(20) as visitors:
        shown = list(visitors.map(lambda _: server.visits(), range(150)))
    assert sorted(shown) == list(range(1, 151))
    assert valkey.counter() == 150
    # One line says where, not one for each worker.
    assert server.log.count(b"listening on") == 1
    for worker in workers:  # it serves while the other one hangs
        os.kill(worker, signal.SIGSTOP)
        try:
            assert server.visits()
        finally:
            os.kill(worker, signal.SIGCONT)
    server.signal(signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not any(map(is_running, workers)))


def sockets_of(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found += os.readlink(descriptor).startswith("socket:")
    return found


def test_connections_are_spread(program: Start, connect: Connect, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    workers = workers_of(server, 2)

    def fewest_of_64() -> int:
        before = {worker: sockets_of(worker) for worker in workers}
        for visitor in [connect(server) for _ in range(64)]:
            assert ask(visitor)[0] == 200
        return min(sockets_of(worker) - before[worker] for worker in workers)

    # Of a worker that a busy machine keeps from accepting at once, the other takes them over, so
    # not every 64 tell how the system spreads them.
    wait_until(lambda: fewest_of_64() >= 16)
    # To others, the port is taken.
    other = run_to_end(f"--port={server.port}", "--processes=2")
    said = f"server.py: cannot listen on port {server.port}: Address already in use\n"
    assert (other.returncode, other.stderr) == (1, said)
    assert seconds_to_stop(server) < SOON
    assert not any(map(is_running, workers))


def test_a_worker_that_died_is_replaced(program: Start, valkey: Valkey, tmp_path: Path) -> None:
    none = tmp_path / "none"
    env = refusing(tmp_path, f"pathlib.Path({str(none)!r}).exists()", INHERITED)
    server = program(f"--redis-url={valkey.url}", "--processes=2", **env)
    victim, other = sorted(workers_of(server, 2))
    none.touch()
    os.kill(victim, signal.SIGKILL)
    server.wait_for(b"worker %d ended with status -9, starting another" % victim)
    server.wait_for(f"cannot start a worker, trying again: {NO_MORE}".encode())
    server.wait_for(b"(?s)(refused.*){2}")
    assert wait_until(server.visits) == 1  # also where a busy machine is late to count
    none.unlink()
    counting(server, 3)
    assert server.log.count(b"cannot start a worker") == 1
    workers = children(server.process.pid)
    (victim,) = workers - {other}
    os.kill(victim, signal.SIGKILL)
    server.wait_for(b"worker %d ended" % victim)
    server.stop()  # a signal meanwhile ends all
    assert not any(map(is_running, workers))


def test_where_not_all_workers_may_be_started_none_is_left(tmp_path: Path) -> None:
    # It ends with the last of its processes, which have its standard error.
    done = run_to_end("--port=0", "--processes=2", NOWHERE, **refusing(tmp_path, "next(forks)"))
    assert done.returncode == 1
    assert done.stderr.endswith(f"server.py: cannot start 2 processes: {NO_MORE}\n")


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 0])
def test_0_processes_are_one_for_each_core_and_collect_garbage(
    processes: int, program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    code = "signal.signal(signal.SIGUSR1, lambda *_: os.write(2, b'gc %d\\n' % gc.isenabled()))"
    env = run_before(tmp_path, f"import gc, os, signal\n{code}")
    server = program(f"--redis-url={valkey.url}", PROCESSES=str(processes), **env)
    cores = processes or usable_cores()
    serving = workers_of(server, cores if cores > 1 else 0) or {server.process.pid}
    assert server.visits() == 1
    for pid in serving:
        server.log = b""
        os.kill(pid, signal.SIGUSR1)
        assert server.wait_for(rb"gc (\d)")[1] == b"1"


@pytest.mark.parametrize(
    ("signums", "of"),
    [
        ([signal.SIGTERM], "parent"),
        ([signal.SIGTERM] * 2, "each"),  # as systemd sends it, to each process of the service
        pytest.param([signal.SIGINT], "group", marks=pytest.mark.slow),  # as Ctrl-C is
        ([signal.SIGTERM], "again"),
    ],
)
def test_a_signal_drains_every_worker_and_a_second_one_ends_them(
    signums: list[int], of: str, program: Start, connect: Connect, valkey: Valkey
) -> None:
    patient = ("--redis-timeout=60", "--grace=60")
    server = program(f"--redis-url={valkey.url}", "--processes=2", *patient)
    workers = workers_of(server, 2)
    visitors = [connect(server) for _ in range(20)]  # at least one for each of the workers
    assert [ask(visitor)[0] for visitor in visitors] == [200] * 20
    valkey.hang()
    for visitor in visitors:
        visitor.request("GET", "/")
    for signum in signums:
        for pid in workers if of == "each" else ():
            os.kill(pid, signum)
        (os.killpg if of == "group" else os.kill)(server.process.pid, signum)
    server.wait_for(rb"(?s)stopping.*stopping")
    assert all(map(is_running, workers))
    if of == "again":
        time.sleep(SAME_SIGNAL)  # else it would be the same
        assert seconds_to_stop(server, status=0) < SOON
    else:
        valkey.go_on()
        pages = [read(visitor)[1] for visitor in visitors]
        assert sorted(int(page.rpartition("> ")[2]) for page in pages) == list(range(1, 21))
        assert server.wait() == 0
    assert b"Traceback" not in server.log
    assert not any(map(is_running, workers))


#: The limit is no limit to root, so it is another user by then, who may still read our files.
ORDINARY = ("setpriv", "--ruid=54321", "--bounding-set=-sys_resource,-sys_admin")

ALONE = (*(ORDINARY if os.getuid() == 0 else ()), "prlimit", "--nproc=1", sys.executable)


def test_an_error_is_told_without_a_thread(program: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = program(f"--port={port}", "--address=127.0.0.1", wait=False, python=ALONE)
        assert server.wait() == 1
    said = f"server.py: cannot listen on port {port} of 127.0.0.1: Address already in use\n"
    assert server.log.decode() == said


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
