"""How the program stops: what is in flight is finished, everything else is closed."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path

import pytest
from tornado.testing import bind_unused_port

from config import Settings
from http1 import HTTPServer
from process.signals import SAME_SIGNAL
from server import make_app, new_server
from tests.support import ROOT
from tests.support.processes import children, seconds_to_stop
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, wait_until

Start = Callable[..., Program]
Connect = Callable[[Program], HTTPConnection]

STOP_SIGNALS = (
    signal.SIGTERM,
    *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGHUP)),
)

# None of the tests waits that long: it is only never the reason for an end.
PATIENT = ("--redis-timeout=60", "--grace=60")

#: The program, whose pauses while it drains a test ends, however busy the machine is.
STEPWISE = ROOT / "tests" / "support" / "stepwise.py"


def ask(connection: HTTPConnection, path: str = "/healthz") -> tuple[int, str]:
    """Send a request and return the status and body of its answer."""
    connection.request("GET", path)
    return read(connection)


def read(connection: HTTPConnection) -> tuple[int, str]:
    """Return the status and body of the answer to a request that was sent before."""
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def seen(bystander: HTTPConnection) -> None:
    """Wait until the program has read what other connections sent before."""
    for _ in range(2):
        assert ask(bystander)[0] == 200


def refuses(program: Program) -> bool:
    """Whether the program's port takes no connection."""
    try:
        socket.create_connection(("127.0.0.1", program.port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # the port was closed while this one waited to be accepted
    return False


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_is_gone_within_a_second_with_status_0(
    signum: signal.Signals, counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    idle = [connect(server) for _ in range(5)]
    for connection in idle[1:]:  # the first never sent a request
        assert ask(connection, "/")[0] == 200
    assert seconds_to_stop(server, signum) < 1
    assert [connection.sock.recv(1) for connection in idle] == [b""] * 5
    assert b"Traceback" not in server.log


def test_server_that_cannot_find_redis_is_gone_within_a_second(
    program: Start, valkey: Valkey
) -> None:
    valkey.hang()
    server = program(f"--redis-url={valkey.url}", "--redis-timeout=60")
    server.wait_for(b"counter off")
    assert seconds_to_stop(server) < 1


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_signal_right_after_the_start_ends_it_with_status_0(
    signum: signal.Signals, program: Start
) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock")
    server.signal(signum)
    assert server.wait() == 0
    assert b"Traceback" not in server.log


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_signal_while_the_event_loop_starts_ends_it_with_status_0(
    signum: signal.Signals, program: Start, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "real = signal.set_wakeup_fd\n"
        f"signals = [{signum:d}]\n"
        "def signalled(*args, **options):\n"
        "    before = real(*args, **options)\n"
        "    while signals:\n"
        "        os.kill(os.getpid(), signals.pop())\n"
        "    return before\n"
        "signal.set_wakeup_fd = signalled\n"
    )
    server = program("--redis-url=unix:/nowhere/redis.sock", PYTHONPATH=str(tmp_path))
    assert server.wait() == 0
    assert b"stopping" in server.log
    assert b"Traceback" not in server.log


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_requests_in_flight_are_finished(
    signum: signal.Signals, counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", *PATIENT)
    visitors = [connect(server) for _ in range(20)]
    bystander = connect(server)
    valkey.hang()
    for visitor in visitors:
        visitor.request("GET", "/", headers={"Accept": "application/json"})
    seen(bystander)
    server.signal(signum)
    server.wait_for(b"stopping")
    wait_until(lambda: refuses(server))
    assert server.process.poll() is None
    valkey.go_on()
    answers = [read(visitor) for visitor in visitors]
    assert [status for status, _ in answers] == [200] * 20
    assert sorted(json.loads(page)["visits"] for _, page in answers) == list(range(1, 21))
    assert server.wait() == 0
    assert valkey.counter() == 20
    assert b"not finished" not in server.log


def test_draining_server_says_so_and_refuses_connections(
    counting: Start, connect: Connect, valkey: Valkey, tmp_path: Path
) -> None:
    server = counting(f"--redis-url={valkey.url}", *PATIENT, script=STEPWISE, STEPS=str(tmp_path))
    visitor, prober, other = (connect(server) for _ in range(3))
    assert ask(prober, "/readyz") == (
        200,
        '{"status": "ready", "redis": "up", "counting": "exactly once"}',
    )
    assert ask(other)[0] == 200
    valkey.hang()
    visitor.request("GET", "/")
    seen(other)
    server.signal()
    server.wait_for(b"stopping")
    assert ask(prober, "/readyz") == (
        503,
        '{"status": "draining", "redis": "up", "counting": "exactly once"}',
    )
    assert not refuses(server)
    (tmp_path / "1").touch()
    wait_until(lambda: refuses(server))
    assert ask(other)[0] == 200  # alive all the same
    (tmp_path / "2").touch()
    valkey.go_on()
    status, page = read(visitor)
    assert (status, page.endswith("<b>Visits:</b> 1")) == (200, True)
    assert server.wait() == 0


def test_request_that_outlasts_the_grace_is_cut(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", "--redis-timeout=60", GRACE="0.4")
    visitor, bystander = connect(server), connect(server)
    valkey.hang()
    visitor.request("GET", "/")
    seen(bystander)
    before = time.monotonic()
    server.signal()
    assert server.wait() == 0
    assert 0.4 <= time.monotonic() - before < 30  # the visit would wait for 60
    assert server.log.count(b"1 requests were not finished in 0.4 s") == 1
    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        visitor.getresponse()


@pytest.mark.parametrize("second", STOP_SIGNALS)
def test_second_signal_stops_at_once(
    second: signal.Signals, counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", *PATIENT)
    visitor, bystander = connect(server), connect(server)
    valkey.hang()
    visitor.request("GET", "/")
    seen(bystander)
    server.signal()
    server.wait_for(b"stopping")
    wait_until(lambda: refuses(server))
    assert server.process.poll() is None
    time.sleep(SAME_SIGNAL)  # else it would be the same
    assert seconds_to_stop(server, second, 128 + second) < 1
    assert b"Traceback" not in server.log


@pytest.mark.parametrize("processes", [1, 2])
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
    server.signal()
    assert server.wait() == 0
    assert server.log.count(b"stopping") == processes


def test_another_signal_stops_at_once_however_soon(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    server = counting(f"--redis-url={valkey.url}", *PATIENT)
    visitor, bystander = connect(server), connect(server)
    valkey.hang()
    visitor.request("GET", "/")
    seen(bystander)
    server.signal(signal.SIGTERM)
    server.wait_for(b"stopping")
    assert seconds_to_stop(server, signal.SIGINT, 128 + signal.SIGINT) < 1


@pytest.mark.parametrize(
    ("milliseconds", "processes"),
    [
        (0, 1),
        (20, 2),
        *(
            pytest.param(milliseconds, processes, marks=pytest.mark.slow)
            for milliseconds in (0, 5, 20, 100, 180, 220)
            for processes in (1, 2)
            if (milliseconds, processes) not in ((0, 1), (20, 2))
        ),
    ],
)
def test_a_signal_that_comes_twice_is_one(
    milliseconds: int, processes: int, program: Start, valkey: Valkey
) -> None:
    """As GNU timeout sends it, to its child and then to its child's group."""
    server = program(f"--redis-url={valkey.url}", f"--processes={processes}")
    server.wait_for(b"(?s)" + b".*".join([b"counter on"] * processes))
    server.signal()
    time.sleep(milliseconds / 1000)
    server.signal()
    assert server.wait() == 0
    assert b"Traceback" not in server.log
    assert b"failed" not in server.log


def test_the_server_goes_on_accepting_for_the_drain_delay_and_is_not_ready(
    counting: Start, connect: Connect, valkey: Valkey
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
    assert server.visits() == 3
    assert ask(connect(server), "/readyz")[0] == 503
    time.sleep(SAME_SIGNAL)
    assert seconds_to_stop(server, status=128 + signal.SIGTERM) < 1


def test_listening_ends_with_the_drain_delay(counting: Start, valkey: Valkey) -> None:
    server = counting(f"--redis-url={valkey.url}", DRAIN_DELAY="0.5")
    begun = time.monotonic()
    assert seconds_to_stop(server) < 1 + 0.5
    assert time.monotonic() - begun >= 0.5


def test_redis_connections_are_closed(counting: Start, valkey: Valkey) -> None:
    def connections() -> int:
        return len(valkey.client.client_list())

    own = connections()
    server = counting(f"--redis-url={valkey.url}")
    assert server.visits() == 1
    wait_until(lambda: connections() == own + 1)
    server.signal()
    assert server.wait() == 0
    wait_until(lambda: connections() == own)


def test_redis_is_told_of_the_end_before_the_process_is_gone(
    counting: Start, connect: Connect, valkey: Valkey
) -> None:
    """A visit that the grace cut short leaves no command behind on an open connection."""
    server = counting(f"--redis-url={valkey.url}", "--redis-timeout=60", "--grace=0")
    visitor, bystander = connect(server), connect(server)
    valkey.hang()
    visitor.request("GET", "/")
    seen(bystander)
    server.signal()
    assert server.wait() == 0
    valkey.go_on()
    wait_until(lambda: len(valkey.client.client_list()) == 1)
    assert valkey.counter() in (0, 1)


def test_body_that_never_comes_is_waited_for_until_the_grace_is_over(
    program: Start, connect: Connect
) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock", "--grace=0.4")
    sender, bystander = connect(server), connect(server)
    sender.putrequest("POST", "/")
    sender.putheader("Content-Length", "5")
    sender.endheaders()
    seen(bystander)
    before = time.monotonic()
    server.signal()
    assert server.wait() == 0
    assert 0.4 <= time.monotonic() - before < 30  # the visit would wait for 60
    assert b"1 requests were not finished" in server.log


def test_body_that_comes_within_the_grace_is_answered_and_ends_the_wait(
    program: Start, connect: Connect
) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock", "--grace=60")
    sender, bystander = connect(server), connect(server)
    sender.putrequest("POST", "/")
    sender.putheader("Content-Length", "5")
    sender.endheaders()
    seen(bystander)
    server.signal()
    server.wait_for(b"stopping")
    wait_until(lambda: refuses(server))
    sender.send(b"12345")
    assert read(sender) == (405, "405 Method Not Allowed\n")
    assert server.wait() == 0


def test_program_may_be_started_through_a_symbolic_link(program: Start, folder: Path) -> None:
    (folder / "hello.py").symlink_to(ROOT / "server.py")
    server = program("--redis-url=unix:/nowhere", script=folder / "hello.py", cwd=folder)
    for path in ("/", "/live", "/static/live.js", "/openapi.yaml"):
        assert server.get(path)[0] == 200


def test_connection_that_answers_while_draining_is_closed_after_the_answer(
    counting: Start, connect: Connect, valkey: Valkey, tmp_path: Path
) -> None:
    server = counting(f"--redis-url={valkey.url}", *PATIENT, script=STEPWISE, STEPS=str(tmp_path))
    visitor, other = connect(server), connect(server)
    assert ask(other)[0] == 200
    valkey.hang()
    visitor.request("GET", "/")
    seen(other)
    server.signal()
    server.wait_for(b"stopping")
    other.request("GET", "/healthz")
    answer = other.getresponse()
    assert answer.headers["Connection"] == "close"
    assert json.loads(answer.read()) == {"status": "ok"}
    for step in ("1", "2"):
        (tmp_path / step).touch()
    valkey.go_on()
    assert read(visitor)[0] == 200
    assert server.wait() == 0


@pytest.mark.gen_test
async def test_one_event_says_that_it_drains_to_handlers_and_connections() -> None:
    draining = asyncio.Event()
    server = new_server(Settings(), make_app(draining=draining))
    listening, port = bind_unused_port()
    server.add_socket(listening)
    for status, ending in ((200, None), (503, "close")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert re.findall("(?m)^Connection: (.*)\r$", head) == ([ending] if ending else [])
        writer.close()
        draining.set()
    server.stop()
    await server.close_all_connections()


@pytest.mark.gen_test
async def test_a_client_in_the_queue_when_listening_ends_is_answered() -> None:
    server = HTTPServer(make_app())
    listening, port = bind_unused_port()
    server.add_socket(listening)
    with socket.create_connection(("127.0.0.1", port)) as client:  # nothing has run that accepts
        server.stop()
        reader, writer = await asyncio.open_connection(sock=client)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    await server.close_all_connections()


@pytest.mark.gen_test
async def test_a_request_on_the_connection_accepted_last_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("http1.server.DRAIN_PAUSE", 1.0)  # room for a busy machine
    server = HTTPServer(make_app())
    listening, port = bind_unused_port()
    server.add_socket(listening)
    draining = asyncio.create_task(server.drain(60))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: listening.fileno() == -1)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await draining
