"""How the program stops: what is in flight is finished, everything else is closed."""

import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path

import pytest

from process.signals import SAME_SIGNAL
from tests.support import ROOT
from tests.support.before import run_before
from tests.support.here import Serve
from tests.support.processes import SOON, children, seconds_to_stop
from tests.support.program import NOWHERE, Connect, Start, ask, read, refuses, seen
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

slow = functools.partial(pytest.param, marks=pytest.mark.slow)

# None of the tests waits that long: it is only never the reason for an end.
PATIENT = ("--redis-timeout=60", "--grace=60")


def hanging_visit(connect: Callable[[], HTTPConnection], valkey: Valkey) -> HTTPConnection:
    """Return the connection of a visit that waits for a Valkey that hangs from now on."""
    visitor, bystander = connect(), connect()
    assert ask(bystander)[0] == 200
    valkey.hang()
    visitor.request("GET", "/")
    seen(bystander)
    return visitor


#: A request whose body of five bytes is still to come.
BODY_TO_COME = ("POST", "/", b"", {"Content-Length": "5"})


@pytest.mark.parametrize(("signum", "hangs"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_idle_server_is_gone_within_a_second_with_status_0(
    signum: signal.Signals, hangs: bool, program: Start, connect: Connect, valkey: Valkey
) -> None:
    if hangs:
        valkey.hang()
    server = program(f"--redis-url={valkey.url}", "--redis-timeout=60")
    server.wait_for(b"counter off" if hangs else b"counter on")
    idle = [connect(server) for _ in range(5)]
    for connection in idle[1:]:  # the first never sent a request
        assert ask(connection, "/")[0] == 200
    assert seconds_to_stop(server, signum) < SOON
    assert [connection.sock.recv(1) for connection in idle] == [b""] * 5
    assert b"Traceback" not in server.log


#: Sends a signal as soon as the event loop has its handler.
AS_IT_STARTS = """
import os, signal
real = signal.set_wakeup_fd
signals = [%d]
def signalled(*args, **options):
    before = real(*args, **options)
    while signals:
        os.kill(os.getpid(), signals.pop())
    return before
signal.set_wakeup_fd = signalled
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, *map(slow, (signal.SIGINT, signal.SIGHUP))])
@pytest.mark.parametrize("is_started", [False, True])
def test_signal_while_the_event_loop_starts_or_right_after_ends_it_with_status_0(
    is_started: bool, signum: signal.Signals, program: Start, tmp_path: Path
) -> None:
    server = program(NOWHERE, **({} if is_started else run_before(tmp_path, AS_IT_STARTS % signum)))
    if is_started:
        server.signal(signum)
    assert server.wait() == 0
    assert is_started or b"stopping" in server.log
    assert b"Traceback" not in server.log


def test_a_draining_server_says_so_refuses_connections_and_finishes_requests_in_flight(
    serve: Serve, connect: Connect, valkey: Valkey, steps: list[threading.Event]
) -> None:
    server = serve(*PATIENT)
    prober, other, idle, sender = (connect(server) for _ in range(4))
    counting = '"redis": "up", "counting": "exactly once"}'
    assert ask(prober, "/readyz") == (200, '{"status": "ready", ' + counting)
    assert ask(other)[0] == ask(idle)[0] == 200
    sender.request(*BODY_TO_COME)
    visitors = [connect(server) for _ in range(20)]
    valkey.hang()
    for visitor in visitors:
        visitor.request("GET", "/", headers={"Accept": "application/json"})
    seen(connect(server))
    server.signal()
    server.wait_for(b"stopping")
    assert ask(prober, "/readyz") == (503, '{"status": "draining", ' + counting)
    assert not refuses(server)
    steps[0].set()
    wait_until(lambda: refuses(server))
    sender.send(b"12345")
    assert read(sender) == (405, "405 Method Not Allowed\n")
    other.request("GET", "/healthz")
    answer = other.getresponse()
    assert answer.headers["Connection"] == "close"
    assert json.loads(answer.read()) == {"status": "ok"}  # alive all the same
    steps[1].set()
    assert idle.sock.recv(1) == b""
    valkey.go_on()
    answers = [read(visitor) for visitor in visitors]
    assert {status for status, _ in answers} == {200}
    assert sorted(json.loads(page)["visits"] for _, page in answers) == list(range(1, 21))
    assert (server.wait(), valkey.counter()) == (0, 20)
    assert b"not finished" not in server.log


def test_requests_that_outlast_the_drain_delay_and_the_grace_are_cut(
    serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    server = serve("--redis-timeout=60", DRAIN_DELAY="0.5", GRACE="0.4")
    sender = connect(server)
    sender.request(*BODY_TO_COME)
    visitor = hanging_visit(lambda: connect(server), valkey)
    before = time.monotonic()
    server.signal()
    assert server.wait() == 0
    assert 0.9 <= time.monotonic() - before < 30  # the visit would wait for 60
    assert server.log.count(b"2 requests were not finished in 0.4 s") == 1
    for one in (sender, visitor):
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            one.getresponse()
    # Redis is told of the end: no command is left behind on an open connection.
    valkey.go_on()
    wait_until(lambda: len(valkey.client.client_list()) == 1)
    assert valkey.counter() in (0, 1)


@pytest.mark.parametrize("processes", [slow(1), 2])
def test_a_closed_terminal_that_was_ignored_at_the_start_stays_so(
    processes: int, program: Start, valkey: Valkey
) -> None:
    flags = (f"--redis-url={valkey.url}", f"--processes={processes}")
    server = program(*flags, python=("nohup", sys.executable))
    server.wait_for(b"(?s)" + b".*".join([b"counter on"] * processes))
    before = children(server.process.pid)
    for pid in (*before, server.process.pid):
        os.kill(pid, signal.SIGHUP)
    assert server.visits() == 1
    server.wait_for(b"200 GET / ")
    assert b"stopping" not in server.log
    assert children(server.process.pid) == before
    server.stop()
    assert server.log.count(b"stopping") == processes


@pytest.mark.parametrize("processes", [1, slow(2)])
def test_a_signal_that_comes_twice_is_one(processes: int, program: Start, valkey: Valkey) -> None:
    """As GNU timeout sends it, to its child and then to its child's group."""
    # Far less than a quarter of a second: a busy machine may bring the second one late.
    for milliseconds in (0,) if processes == 1 else (0, 5, 20, 50):
        server = program(f"--redis-url={valkey.url}", f"--processes={processes}")
        server.wait_for(b"(?s)" + b".*".join([b"counter on"] * processes))
        server.signal()
        time.sleep(milliseconds / 1000)
        server.stop()
        assert b"failed" not in server.log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, slow(signal.SIGHUP)])
def test_the_server_goes_on_accepting_for_the_drain_delay_until_a_second_signal(
    second: signal.Signals, counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--drain-delay=3600")
    kept = connect(server)
    assert ask(kept)[0] == 200
    server.signal()
    server.wait_for(b"stopping")
    for connection in (kept, connect(server)):
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert b"<b>Visits:</b> " in answer.read()
    assert ask(connect(server), "/readyz")[0] == 503
    hanging_visit(lambda: connect(server), valkey)
    if second == signal.SIGTERM:
        time.sleep(SAME_SIGNAL)  # else it would be the same
    assert seconds_to_stop(server, second, 128 + second) < SOON
    assert b"Traceback" not in server.log


def test_program_may_be_started_through_a_symbolic_link_from_any_working_directory(
    program: Start, folder: Path
) -> None:
    (folder / "hello.py").symlink_to(ROOT / "server.py")
    server = program(NOWHERE, script=folder / "hello.py", cwd=folder)
    for path in ("/", "/live", "/static/live.js", "/openapi.yaml"):
        assert server.get(path)[0] == 200
    assert os.listdir(folder) == ["hello.py"]
