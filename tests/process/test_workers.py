"""``--processes``: workers that share the port, count together and end together."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from process import usable_cores
from process.signals import SAME_SIGNAL
from tests.support.processes import children, is_running, processes_in, seconds_to_stop
from tests.support.program import Program, run_to_end
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

Start = Callable[..., Program]
Connect = Callable[[Program], HTTPConnection]


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
    for visitor in visitors:
        visitor.request("GET", "/healthz")
        visitor.getresponse().read()
    valkey.hang()
    for visitor in visitors:
        visitor.request("GET", "/")
    return visitors


def numbers(visitors: list[HTTPConnection]) -> list[int]:
    """The numbers that waiting visits get, in their order."""
    pages = [visitor.getresponse().read().decode() for visitor in visitors]
    return sorted(int(page.rpartition("<b>Visits:</b> ")[2]) for page in pages)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_hand_out_consecutive_numbers(
    processes: int, program: Start, valkey: Valkey
) -> None:
    server = program(f"--redis-url={valkey.url}", "--access-log=false", PROCESSES=str(processes))
    workers_of(server, processes)
    with ThreadPoolExecutor(20) as visitors:
        shown = list(visitors.map(lambda _: server.visits(), range(300)))
    assert sorted(shown) == list(range(1, 301))
    assert valkey.counter() == 300
    # One line says where, not one for each worker.
    assert server.log.count(b"listening on") == 1


def test_each_worker_serves_while_the_other_hangs(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    for worker in workers_of(server, 2):
        os.kill(worker, signal.SIGSTOP)
        try:
            assert server.visits()
        finally:
            os.kill(worker, signal.SIGCONT)


def sockets_of(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found += os.readlink(descriptor).startswith("socket:")
    return found


def test_connections_are_spread_over_the_workers(
    program: Start, connect: Connect, valkey: Valkey
) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    workers = workers_of(server, 2)

    def fewest_of_64() -> int:
        before = {worker: sockets_of(worker) for worker in workers}
        for visitor in [connect(server) for _ in range(64)]:
            visitor.request("GET", "/healthz")
            assert visitor.getresponse().read()
        return min(sockets_of(worker) - before[worker] for worker in workers)

    # Of a worker that a busy machine keeps from accepting at once, the other takes them over, so
    # not every 64 tell how the system spreads them.
    wait_until(lambda: fewest_of_64() >= 16)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_port_of_other_workers_is_taken(processes: int, program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    other = run_to_end(f"--port={server.port}", f"--processes={processes}")
    assert other.returncode == 1
    assert other.stderr == (
        f"server.py: cannot listen on port {server.port}: Address already in use\n"
    )


def test_worker_that_died_is_replaced(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    for died in (1, 2):
        before = workers_of(server, 2)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        server.wait_for(b"worker %d ended with status -9, starting another" % victim)
        wait_until(lambda victim=victim: len(children(server.process.pid) - {victim}) == 2)
        counting(server, 2 + died)
        assert server.visits() == died
    server.signal()
    assert server.wait() == 0


def test_one_process_starts_no_worker(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}")
    counting(server, 1)
    assert server.visits() == 1
    assert children(server.process.pid) == set()


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_garbage_is_collected_once_it_serves(
    processes: int, program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import gc, os, signal\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os.write(2, b'gc %d\\n' % gc.isenabled()))\n"
    )
    server = program(
        f"--redis-url={valkey.url}", PYTHONPATH=str(tmp_path), PROCESSES=str(processes)
    )
    serving = workers_of(server, processes) if processes > 1 else {server.process.pid}
    server.visits()
    for pid in serving:
        server.log = b""
        os.kill(pid, signal.SIGUSR1)
        assert server.wait_for(rb"gc (\d)")[1] == b"1"


def test_0_processes_are_one_for_each_core_that_may_be_used(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=0")
    cores = usable_cores()
    workers_of(server, cores if cores > 1 else 0)
    assert server.visits() == 1


def test_0_processes_heed_the_affinity(program: Start, valkey: Valkey) -> None:
    core = min(os.sched_getaffinity(0))
    server = program(
        f"--redis-url={valkey.url}",
        "--processes=0",
        python=("taskset", "--cpu-list", str(core), sys.executable),
    )
    assert server.visits() == 1
    assert not children(server.process.pid)


@pytest.mark.parametrize("whole_group", [False, True])
def test_signal_drains_every_worker(
    whole_group: bool, program: Start, connect: Connect, valkey: Valkey
) -> None:
    """Ctrl-C in a terminal is a SIGINT to the whole group of processes."""
    server = program(
        f"--redis-url={valkey.url}", "--processes=2", "--redis-timeout=60", "--grace=60"
    )
    workers = workers_of(server, 2)
    visitors = in_flight(server, connect, valkey)
    if whole_group:
        os.killpg(server.process.pid, signal.SIGINT)
    else:
        server.signal()
    server.wait_for(rb"(?s)stopping.*stopping")
    assert all(is_running(worker) for worker in workers)
    valkey.go_on()
    assert numbers(visitors) == list(range(1, 21))
    assert server.wait() == 0
    assert not any(is_running(worker) for worker in workers)
    assert b"Traceback" not in server.log


def test_idle_workers_are_gone_within_a_second(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    workers = workers_of(server, 2)
    assert seconds_to_stop(server) < 1
    assert not any(is_running(worker) for worker in workers)


def test_signal_while_a_worker_is_being_replaced_ends_all(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    workers = workers_of(server, 2)
    os.kill(min(workers), signal.SIGKILL)
    server.wait_for(b"starting another")
    server.signal()
    assert server.wait() == 0
    assert not any(is_running(worker) for worker in workers)
    assert b"Traceback" not in server.log


def test_second_signal_stops_every_worker_at_once(
    program: Start, connect: Connect, valkey: Valkey
) -> None:
    server = program(
        f"--redis-url={valkey.url}", "--processes=2", "--redis-timeout=60", "--grace=60"
    )
    workers = workers_of(server, 2)
    in_flight(server, connect, valkey)
    server.signal()
    server.wait_for(rb"(?s)stopping.*stopping")
    time.sleep(SAME_SIGNAL)  # else it would be the same
    assert seconds_to_stop(server, status=0) < 1
    assert not any(is_running(worker) for worker in workers)


def test_a_signal_to_the_whole_group_cuts_no_request(
    program: Start, connect: Connect, valkey: Valkey
) -> None:
    """As systemd sends it, to each process of the service."""
    server = program(f"--redis-url={valkey.url}", "--processes=2", *["--redis-timeout=60"])
    workers = workers_of(server, 2)
    visitors = in_flight(server, connect, valkey)
    for signum in (signal.SIGTERM, signal.SIGTERM):
        for pid in (*workers, server.process.pid):
            os.kill(pid, signum)
    server.wait_for(rb"(?s)stopping.*stopping")
    valkey.go_on()
    assert numbers(visitors) == list(range(1, 21))
    assert server.wait() == 0


def test_workers_end_with_a_parent_that_was_killed(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2")
    workers = workers_of(server, 2)
    server.signal(signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not any(is_running(worker) for worker in workers))


def test_workers_share_the_embedded_valkey_and_leave_no_process(
    program: Start, folder: Path
) -> None:
    data = folder / "data"
    for first, signum in ((1, signal.SIGINT), (31, signal.SIGKILL)):
        server = program(f"--redis-url=embedded:{data}", "--processes=2")
        workers = workers_of(server, 2, besides=data)
        with ThreadPoolExecutor(10) as visitors:
            shown = list(visitors.map(lambda _: server.visits(), range(30)))  # noqa: B023
        assert sorted(shown) == list(range(first, first + 30))
        if signum == signal.SIGINT:
            os.killpg(server.process.pid, signum)
            assert server.wait() == 0
        else:
            server.signal(signum)
            server.process.wait()
        wait_until(lambda: not processes_in(data))
        wait_until(lambda workers=workers: not any(is_running(worker) for worker in workers))
