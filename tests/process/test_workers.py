"""``--processes``: workers that share the port, count together and end together."""

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from process import usable_cores
from process.signals import SAME_SIGNAL
from tests.support.before import run_before
from tests.support.processes import SOON, children, is_running, processes_in, seconds_to_stop
from tests.support.program import Connect, Program, Start, ask, read, run_to_end
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


def workers_of(server: Program, number: int, besides: Path | None = None) -> set[int]:
    """The process ids of a server's workers, when all of them are there and serve."""

    def found() -> set[int]:
        return children(server.process.pid) - (processes_in(besides) if besides else set())

    wait_until(lambda: len(found()) == number)
    counting(server, number or 1)
    return found()


def counting(server: Program, times: int) -> None:
    """Wait until as many workers as have started since its start have begun to count."""
    server.wait_for(b"(?s)" + b".*".join([b"counter on"] * times))


def in_flight(server: Program, connect: Connect, valkey: Valkey) -> list[HTTPConnection]:
    """Visits that wait for a Valkey that hangs: at least one for each of two workers."""
    visitors = [connect(server) for _ in range(20)]
    assert [ask(visitor)[0] for visitor in visitors] == [200] * 20
    valkey.hang()
    for visitor in visitors:
        visitor.request("GET", "/")
    return visitors


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_count_together_each_serves_alone_and_none_outlives_the_parent(
    processes: int, program: Start, valkey: Valkey
) -> None:
    server = program(f"--redis-url={valkey.url}", "--access-log=false", PROCESSES=str(processes))
    workers = workers_of(server, processes)
    with ThreadPoolExecutor(20) as visitors:
        shown = list(visitors.map(lambda _: server.visits(), range(150)))
    assert sorted(shown) == list(range(1, 151))
    assert valkey.counter() == 150
    # One line says where, not one for each worker.
    assert server.log.count(b"listening on") == 1
    for worker in sorted(workers)[:2]:  # it serves while the other one hangs
        os.kill(worker, signal.SIGSTOP)
        try:
            assert server.visits()
        finally:
            os.kill(worker, signal.SIGCONT)
    server.signal(signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not any(is_running(worker) for worker in workers))


def sockets_of(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found += os.readlink(descriptor).startswith("socket:")
    return found


def test_connections_are_spread_over_the_workers_who_are_gone_within_a_second(
    program: Start, connect: Connect, valkey: Valkey
) -> None:
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
    assert not any(is_running(worker) for worker in workers)


def test_worker_that_died_is_replaced_and_a_signal_meanwhile_ends_all(
    program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    # Whatever started it may have ignored SIGCHLD.
    env = run_before(tmp_path, "import signal as s; s.signal(s.SIGCHLD, s.SIG_IGN)")
    server = program(f"--redis-url={valkey.url}", "--processes=2", **env)
    for died in (1, 2):
        before = workers_of(server, 2)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        server.wait_for(b"worker %d ended with status -9, starting another" % victim)
        wait_until(lambda victim=victim: len(children(server.process.pid) - {victim}) == 2)
        counting(server, 2 + died)
        assert server.visits() == died
    workers = workers_of(server, 2)
    os.kill(min(workers), signal.SIGKILL)
    server.wait_for(b"(?s)" + b".*".join([b"starting another"] * 3))
    server.stop()
    assert not any(is_running(worker) for worker in workers)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 0])
def test_0_processes_are_one_for_each_core_and_collect_garbage_once_they_serve(
    processes: int, program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import gc, os, signal\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os.write(2, b'gc %d\\n' % gc.isenabled()))\n"
    )
    env = {"PYTHONPATH": str(tmp_path), "PROCESSES": str(processes)}
    server = program(f"--redis-url={valkey.url}", **env)
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
def test_signal_drains_every_worker_and_cuts_no_request_and_a_second_one_stops_them_at_once(
    signums: list[int], of: str, program: Start, connect: Connect, valkey: Valkey
) -> None:
    patient = ("--redis-timeout=60", "--grace=60")
    server = program(f"--redis-url={valkey.url}", "--processes=2", *patient)
    workers = workers_of(server, 2)
    visitors = in_flight(server, connect, valkey)
    for signum in signums:
        for pid in workers if of == "each" else ():
            os.kill(pid, signum)
        (os.killpg if of == "group" else os.kill)(server.process.pid, signum)
    server.wait_for(rb"(?s)stopping.*stopping")
    assert all(is_running(worker) for worker in workers)
    if of == "again":
        time.sleep(SAME_SIGNAL)  # else it would be the same
        assert seconds_to_stop(server, status=0) < SOON
    else:
        valkey.go_on()
        pages = [read(visitor)[1] for visitor in visitors]
        assert sorted(int(page.rpartition("> ")[2]) for page in pages) == list(range(1, 21))
        assert server.wait() == 0
    assert b"Traceback" not in server.log
    assert not any(is_running(worker) for worker in workers)


def test_workers_share_the_embedded_valkey_and_leave_no_process(
    program: Start, folder: Path
) -> None:
    data = folder / "data"
    server = program(f"--redis-url=embedded:{data}", "--processes=2")
    workers = workers_of(server, 2, besides=data)
    with ThreadPoolExecutor(10) as visitors:
        shown = list(visitors.map(lambda _: server.visits(), range(30)))
    assert sorted(shown) == list(range(1, 31))
    server.signal(signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not processes_in(data))
    wait_until(lambda: not any(is_running(worker) for worker in workers))
