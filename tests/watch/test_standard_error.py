"""Standard error that breaks or stalls: no page waits for it; what it does not take is counted."""

import contextlib
import functools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import termios
import time
import tty
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from process import standard_error
from process.standard_error import MOST_WAITING, StandardError
from tests.support import ROOT
from tests.support.before import run_before
from tests.support.embedded import valkey_of
from tests.support.processes import SOON, children, processes_in, seconds_to_stop, used
from tests.support.program import NOWHERE, Connect, Program, Start, environment, refuses, seen
from tests.support.raw_http import logged, open_to, read_to_end
from tests.support.waiting import PATIENCE, wait_until
from tests.watch.test_logs import requests_in, whole_lines

#: Bytes that may wait, instead of twenty times as many.
FEWER = 48 * 1024

#: A path as long as a line shows, so that few requests fill what may wait.
LONG = "/?" + "x" * 480

BROKEN = ["pipe without reader", "full device", "socket without peer", "closed terminal"]
STALLED = ["pipe", "stopped terminal", "pipe that does not block", "socket"]


def slow(*values: object) -> object:
    """What is left to `make test-slow`."""
    return pytest.param(*values, marks=pytest.mark.slow)


#: Makes what is written to, and what could be read.
Make = Callable[[str], tuple[int, int]]


@pytest.fixture
def sink() -> Iterator[Make]:
    """Make a standard error, and close both its ends in the end."""
    opened = [nobody := os.open(os.devnull, os.O_RDWR)]

    def make(kind: str) -> tuple[int, int]:
        if kind == "full device":
            reading, writing = os.dup(nobody), os.open("/dev/full", os.O_WRONLY)
        elif "socket" in kind:  # as systemd's journal gives one
            reading, writing = (one.detach() for one in socket.socketpair())
        elif "terminal" in kind:
            reading, writing = os.openpty()
            tty.setraw(writing)
            termios.tcflow(writing, termios.TCOOFF)  # as with Ctrl-S
        else:
            reading, writing = os.pipe()
            # As another program that shares it may have set it.
            os.set_blocking(writing, kind != "pipe that does not block")
        if kind in BROKEN:
            os.dup2(nobody, reading)
        opened.extend((reading, writing))
        return writing, reading

    yield make
    for one in opened:
        os.close(one)


@pytest.fixture
def small(program: Start, tmp_path: Path) -> Start:
    fewer = f"MOST_WAITING, much.MUCH_WAITING = {FEWER}, {FEWER // 4}"
    env = run_before(tmp_path, f"import process.standard_error as much\nmuch.{fewer}")
    return functools.partial(program, NOWHERE, **env)


def fill(writing: int) -> None:
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"-" * 4096)
    os.set_blocking(writing, True)


def dropped(server: Program) -> int:
    name = "friendlyhello_log_lines_dropped_total"
    [number] = re.findall(rf"(?m)^{name} (\S+)$", server.get("/metrics")[1])
    return int(float(number))


def visit_until_lines_are_dropped(server: Program, connect: Connect) -> int:
    """Ask for pages until lines are dropped; return how many there were."""
    connection = connect(server)
    for number in range(1, 100 * FEWER // len(LONG)):
        connection.request("GET", f"{LONG}&{number}&")
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        if number % 50 == 0 and dropped(server):  # the metrics are those of a moment ago
            return number
    raise AssertionError("no line was dropped")


def numbers_in(log: bytes | bytearray, log_format: str = "text") -> list[int]:
    """The numbers of the requests that are in a log of whole lines."""
    lines = requests_in(whole_lines(bytes(log), log_format))
    return [int(re.findall(r"x&(\d+)&", line)[0]) for line in lines]


@pytest.mark.parametrize(
    ("kind", "processes"),
    [(BROKEN[0], 2), ("pipe", 1), *(slow(kind, 1) for kind in (*BROKEN, *STALLED[1:]))],
)
def test_one_that_breaks_or_stalls_costs_nothing(
    kind: str, processes: int, sink: Make, small: Start, connect: Connect
) -> None:
    server = small(f"--processes={processes}", stderr=sink(kind)[0])
    serving = [server.process.pid, *children(server.process.pid)]
    visit_until_lines_are_dropped(server, connect)
    assert server.get("/healthz")[0] == 200
    before = sum(map(used, serving))
    time.sleep(1)  # in which it may be busy
    assert sum(map(used, serving)) - before < 0.5
    assert seconds_to_stop(server) < SOON


def test_workers_are_replaced_though_it_stalls(sink: Make, program: Start) -> None:
    """And what waits as workers are forked is written once."""
    writing, reading = sink("pipe")
    fill(writing)
    server = program(NOWHERE, "--processes=2", stderr=writing)
    for _ in range(2):
        wait_until(lambda: len(children(server.process.pid)) == 2)
        victim = min(children(server.process.pid))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: len(children(server.process.pid) - {victim}) == 2)
        assert server.get()[0] == 200
    with logged(server, reading) as log:
        wait_until(lambda: log.count(b"counter off") >= 2)
        server.signal()
        assert server.process.wait(PATIENCE) == 0
    assert log.count(b"listening on") == 1
    assert log.count(b"stopping") == 2


@pytest.mark.parametrize("log_format", ["text", slow("json")])
def test_the_log_tells_of_dropped_lines(log_format: str, small: Start, connect: Connect) -> None:
    server = small(f"--log-format={log_format}")
    made = visit_until_lines_are_dropped(server, connect)
    note = server.wait_for(
        rb"(\d+) log lines were dropped, as standard error did not take them[^\n]*\n"
    )
    counted = int(note[1])
    wait_until(lambda: dropped(server) == counted)  # the metrics are those of a moment ago
    server.get(f"{LONG}&{made + 1}&")
    server.stop()
    # What is missing is missing in one place, before the line that says so.
    kept = made - counted
    assert numbers_in(server.log, log_format) == [*range(1, kept + 1), made + 1]
    assert numbers_in(server.log[: note.end()], log_format)[-1] == kept
    assert server.log.count(b"lines were dropped") == 1


#: Two processes that fill a pipe at the same time.
TWO = """
import os
from process.standard_error import StandardError
error = StandardError(2)
error.before_fork()
child = os.fork()
if not child:
    error.forget()
for _ in range(20):
    error.write((b"a" if child else b"b") * 99_999 + b"\\n")
    while error._thread:
        error.finish()
if child:
    os.wait()
"""


def test_lines_of_two_processes_are_whole_in_a_pipe_that_is_full() -> None:
    with subprocess.Popen([sys.executable, "-c", TWO], cwd=ROOT, stderr=subprocess.PIPE) as both:
        lines = both.communicate(timeout=PATIENCE)[1].split()
    assert Counter(lines) == {b"a" * 99_999: 20, b"b" * 99_999: 20}


@pytest.mark.parametrize(
    ("kind", "processes", "length"),
    [("pipe", 2, 480), *(slow(kind, 1, 0) for kind in ("pipe", STALLED[2], "socket"))],
)
def test_at_full_load_a_slow_reader_gets_each_line(
    kind: str, processes: int, length: int, sink: Make, program: Start, tmp_path: Path
) -> None:
    writing, reading = sink(kind)
    server = program(NOWHERE, f"--processes={processes}", stderr=writing)
    path, clients = f"/healthz/{'-' * length}x&", 8
    each = 3 * MOST_WAITING // (length + 100) // clients  # several times what may wait

    def ask(number: int) -> int:
        lines = range(number * each, (number + 1) * each)
        requests = [f"GET {path}{one}& HTTP/1.1\r\nHost: a\r\n" for one in lines]
        requests[-1] += "Connection: close\r\n"
        with open_to(server) as client, ThreadPoolExecutor(1) as sending:
            sending.submit(client.sendall, "".join(f"{one}\r\n" for one in requests).encode())
            return read_to_end(client).count(b"HTTP/1.1 404")

    made = 300  # far more than a pipe holds, or a socket, and less than may wait
    for number in range(made):
        server.get(f"{path}{clients * each + number}&")
    # A process of its own, as the clients keep the interpreter busy.
    log = tmp_path / "log"
    with (
        log.open("wb") as copy,
        subprocess.Popen(["cat"], stdin=reading, stdout=copy) as cat,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(cat.kill)
        with ThreadPoolExecutor(clients) as all_clients:
            assert [*all_clients.map(ask, range(clients))] == [each] * clients
        assert dropped(server) == 0
        server.signal()
        assert server.process.wait(PATIENCE) == 0
        wait_until(lambda: log.read_bytes().count(b"stopping") == processes)
    numbers = numbers_in(log.read_bytes())
    assert sorted(numbers) == list(range(clients * each + made))
    for number in range(clients):  # the lines of a connection are in the order of its requests
        own = [one for one in numbers if one // each == number]
        assert own == sorted(own)


def test_a_second_signal_stops_at_once(sink: Make, program: Start, connect: Connect) -> None:
    writing, _ = sink("pipe")
    fill(writing)
    server = program(NOWHERE, "--grace=60", stderr=writing)
    sender, bystander = connect(server), connect(server)
    sender.request("POST", "/", headers={"Content-Length": "5"})  # a body that never comes
    seen(bystander)
    server.signal()
    wait_until(lambda: refuses(server))
    assert server.process.poll() is None
    assert seconds_to_stop(server, signal.SIGINT, 128 + signal.SIGINT) < SOON


def test_a_line_that_a_full_disk_cut_is_finished(program: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    writing = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    server = program(NOWHERE, stderr=writing)
    os.close(writing)
    wait_until(lambda: b"counter off" in log.read_bytes())
    limit = resource.RLIMIT_FSIZE
    resource.prlimit(server.process.pid, limit, (log.stat().st_size + 100, resource.RLIM_INFINITY))
    for number in range(4):  # the first has room, the second is begun
        server.get(f"/?{'x' * 30}&{number}&")
    wait_until(lambda: dropped(server) == 2)
    assert not log.read_bytes().endswith(b"\n")
    resource.prlimit(server.process.pid, limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    server.get("/?x&4&")
    wait_until(lambda: b"2 log lines were dropped" in log.read_bytes())
    server.signal()
    assert server.wait() == 0
    assert numbers_in(log.read_bytes()) == [0, 1, 4]


def test_without_one_it_serves(program: Start) -> None:
    without = ("/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable)
    server = program(NOWHERE, python=without, stderr=subprocess.DEVNULL)
    assert [server.get()[0] for _ in range(5)] == [200] * 5
    assert seconds_to_stop(server) < SOON


NOPE = (["server.py", "--nope"], 2)
FAILS = (["-c", "import watch; watch.configure_logs('text'); raise ValueError"], 1)


@pytest.mark.parametrize(
    ("kind", "arguments", "status"),
    [
        ("pipe", *NOPE),
        *(slow(kind, *one) for kind in ("pipe", *BROKEN[:2]) for one in (NOPE, FAILS)),
        # With a pipe that stalls it waits, as programs of a command line do.
        (BROKEN[0], ["check.py", "ftp://h"], 2),
    ],
)
def test_no_message_holds_it_up(kind: str, arguments: list[str], status: int, sink: Make) -> None:
    writing, _ = sink(kind)
    if kind not in BROKEN:
        fill(writing)
    command, env = [sys.executable, *arguments], environment()
    done = subprocess.run(command, cwd=ROOT, env=env, stderr=writing, timeout=PATIENCE)
    assert done.returncode == status


def test_traceback_and_what_was_logged_before_it_are_written_in_their_order() -> None:
    code = "import logging, watch; watch.configure_logs('text'); logging.warning('before'); 1 / 0"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (1, "")
    first, begin, *_, last = done.stderr.splitlines()
    assert first.endswith("] before")
    assert begin == "Traceback (most recent call last):"
    assert last == "ZeroDivisionError: division by zero"


def test_a_worker_that_fails_says_why(program: Start, tmp_path: Path) -> None:
    env = run_before(tmp_path, "import asyncio as a; a.Runner = 0")
    server = program(NOWHERE, "--processes=2", **env)
    said = rb"(?s)worker failed\n.*\n *TypeError: [^\n]*\n.* ended with status 1, starting"
    server.wait_for(said)  # before its parent tells its end


def test_valkey_is_started_again_though_it_stalls(program: Start, sink: Make, folder: Path) -> None:
    writing, _ = sink("pipe")
    server = program(f"--redis-url=embedded:{folder}/data", stderr=writing)
    wait_until(lambda: server.visits() is not None)
    fill(writing)
    first = valkey_of(folder / "data")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: valkey_of(folder / "data") != first)
    wait_until(lambda: server.visits() is not None)
    assert seconds_to_stop(server) < 2
    wait_until(lambda: not processes_in(folder / "data"))


def test_a_thread_that_is_late_is_waited_for(sink: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def late(self: StandardError) -> Iterator[None]:
        time.sleep(5 * standard_error.PATIENCE)
        yield

    monkeypatch.setattr(StandardError, "_turn", late)
    writing, reading = sink("pipe")
    error = StandardError(writing)
    error.write(b"last words\n")
    error.finish()
    os.set_blocking(reading, False)
    assert os.read(reading, 100) == b"last words\n"
