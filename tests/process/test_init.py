"""What starts it: a container, whose process 1 it is, or a service manager.

As process 1 it reaps what others leave, takes no status of the server's, and passes signals on.
The kernel makes no test the first process of anything without root. But a process may be the one
that orphans come to (PR_SET_CHILD_SUBREAPER of prctl(2)); `container/test_run.py` has the real one.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config import Settings
from process import inherited_sockets, notify, systemd
from process.signals import SAME_SIGNAL
from server import make_parts
from tests.support import ROOT, Caplog, Patch
from tests.support.before import run_before
from tests.support.here import refused
from tests.support.processes import SOON, children, seconds_to_stop
from tests.support.program import NOWHERE, Connect, Program, Start, environment, run_to_end, seen
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: Makes a process believe that it is process 1, and orphans below it come to it.
PROCESS_1 = """
import ctypes, os
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.getpid = lambda own=os.getpid, first=os.getpid(): 1 if own() == first else own()
"""

#: As whatever started the program may have left it.
SIGCHLD_IGNORED = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"


@pytest.fixture
def first(program: Start, valkey: Valkey, tmp_path: Path) -> Start:
    def start(*flags: str) -> Program:
        env = run_before(tmp_path, PROCESS_1 + SIGCHLD_IGNORED)
        one = program(f"--redis-url={valkey.url}", "--redis-timeout=60", *flags, **env)
        one.wait_for(b"counter on")
        return one

    return start


ORPHANS = """
import os, subprocess, sys, time
from process import leave_process_1
leave_process_1()
for _ in range(10):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.01)
        os._exit(0)
    os.wait()
for status in range(5):
    done = subprocess.run([sys.executable, "-SIc", f"raise SystemExit({status})"])
    assert done.returncode == status, done
print("asked", flush=True)
time.sleep(60)
"""


def test_orphans_are_reaped_and_no_status_that_the_server_waits_for_is_taken() -> None:
    process_1 = subprocess.Popen(
        [sys.executable, "-c", PROCESS_1 + ORPHANS], cwd=ROOT, stdout=subprocess.PIPE
    )
    with process_1:
        assert process_1.stdout
        assert process_1.stdout.readline() == b"asked\n"
        wait_until(
            lambda: len(children(process_1.pid)) == 1 and not children(process_1.pid, ended=True)
        )
        process_1.terminate()
        assert process_1.wait() == 0


def test_a_worker_that_died_is_replaced_below_process_1(first: Start) -> None:
    one = first("--processes=2")
    (server,) = children(one.process.pid)
    victim = min(children(server))
    os.kill(victim, signal.SIGKILL)
    one.wait_for(b"worker %d ended with status -9, starting another" % victim)
    assert not children(one.process.pid, ended=True)
    # Its status tells how the server has ended.
    os.kill(server, signal.SIGKILL)
    assert one.wait() == 128 + signal.SIGKILL


SIGNALS = [
    signal.SIGINT,  # for which Python has a handler of its own; other tests send SIGTERM
    *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGHUP)),
]


@pytest.mark.parametrize("signum", SIGNALS)
def test_process_1_drains_and_is_gone_within_a_second(signum: int, first: Start) -> None:
    one = first()
    assert one.visits() == 1
    assert seconds_to_stop(one, signum) < SOON
    assert b"stopping" in one.log


def test_a_second_signal_stops_at_once(first: Start, connect: Connect, valkey: Valkey) -> None:
    one = first("--grace=60")
    visitor, bystander = connect(one), connect(one)
    valkey.hang()
    visitor.request("GET", "/")
    seen(bystander)
    one.signal()
    one.wait_for(b"stopping")
    time.sleep(SAME_SIGNAL)  # else it would be the same
    assert seconds_to_stop(one, signal.SIGTERM, 128 + signal.SIGTERM) < SOON


def test_process_1_serves_where_it_may_not_fork(
    program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    refuse = "\ndef fork():\n    raise BlockingIOError(11, 'no')\nos.fork = fork\n"
    one = program(f"--redis-url={valkey.url}", **run_before(tmp_path, PROCESS_1 + refuse))
    one.wait_for(b"counter on")
    assert not children(one.process.pid)
    assert seconds_to_stop(one) < SOON


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize(
    ("module", "slowly"),
    [
        # Before its fork. A signal just before one long sleep would not end it.
        ("config", "[time.sleep(0.05) for _ in range(1000)]"),
        ("handlers", "sum(range(10**10))"),  # after it; no handler of Python's runs meanwhile
    ],
)
def test_a_signal_during_imports_ends_process_1(
    module: str, slowly: str, signum: int, tmp_path: Path
) -> None:
    importing = tmp_path / "importing"
    slow = f"""
import sys, time, pathlib
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            pathlib.Path({str(importing)!r}).touch()
            {slowly}
sys.meta_path.insert(0, Slow())
"""
    env = environment(**run_before(tmp_path, PROCESS_1 + slow))
    command = [sys.executable, "server.py", "--port=0"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE) as one:
        wait_until(importing.exists)
        one.send_signal(signum)
        try:
            assert one.communicate(timeout=PATIENCE)[1] == b""
        finally:
            one.kill()
    assert one.returncode == 0


#: Hands sockets over to this process.
HandOver = Callable[..., None]

#: Opens a socket as a service manager does, and becomes the program to which it is handed.
OPEN_AND_RUN = """
import os, socket, sys
listen_pid, *program = sys.argv[1:]
opened = socket.create_server(("127.0.0.1", 0))
os.dup2(os.dup2(opened.fileno(), 100, inheritable=False), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=listen_pid or str(os.getpid()))
os.execv(program[0], program)
"""


def with_socket(listen_pid: str = "") -> tuple[str, ...]:
    """Return what runs a Python whose program inherits a listening socket.

    :arg listen_pid: for whom it is; for that program when empty.
    """
    return (sys.executable, "-c", OPEN_AND_RUN, listen_pid, sys.executable)


@pytest.fixture(params=[""])
def manager(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: Patch
) -> Iterator[socket.socket]:
    """What programs send their messages to; with ``@``, by an abstract name (unix(7))."""
    place = f"{request.param}{folder}/notify"
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        one.bind(place.replace("@", "\0", 1))
        one.settimeout(PATIENCE)
        yield one


def told(manager: socket.socket) -> tuple[str, int]:
    """Return the next message, and the process that sent it (unix(7), SCM_CREDENTIALS)."""
    room = socket.CMSG_SPACE(struct.calcsize("3i"))
    data, [(_, _, credentials)], *_ = manager.recvmsg(4096, room)
    return data.decode(), struct.unpack("3i", credentials)[0]


def is_told_more(manager: socket.socket) -> bool:
    return bool(select.select([manager], [], [], 0)[0])


@pytest.mark.parametrize(("manager", "processes"), [("", 1), ("@", 2)], indirect=["manager"])
def test_it_is_ready_when_it_listens_and_says_that_it_stops(
    program: Start, manager: socket.socket, processes: int
) -> None:
    server = program(NOWHERE, f"--processes={processes}", "--drain-delay=1", wait=False)
    assert told(manager) == ("READY=1", server.process.pid)
    server.wait_until_it_listens()
    assert server.get("/healthz")[0] == 200
    server.signal()
    assert told(manager) == ("STOPPING=1", server.process.pid), "before it has drained"
    assert server.process.poll() is None
    assert server.wait() == 0
    assert not is_told_more(manager)


def test_it_is_not_ready_when_it_cannot_start(manager: socket.socket, tmp_path: Path) -> None:
    missing = f"--tls-cert={tmp_path}/none", f"--tls-key={tmp_path}/none"
    refused(run_to_end("--port=0", *missing), 1)
    assert not is_told_more(manager)


@pytest.mark.usefixtures("manager")
def test_a_message_that_cannot_be_sent_is_logged(monkeypatch: Patch, caplog: Caplog) -> None:
    monkeypatch.setattr(systemd, "PATIENCE", 0.01)
    while not caplog.messages:  # the manager reads nothing
        notify("READY=1")
    assert caplog.messages == ["cannot send READY=1 to NOTIFY_SOCKET: timed out"]
    for place in ("/nowhere/notify", "@nobody-reads-this", "/" + "x" * 200):
        caplog.clear()
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        notify("READY=1")
        (line,) = caplog.messages
        assert line.startswith("cannot send READY=1 to NOTIFY_SOCKET: ")
    caplog.clear()
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
    assert not caplog.messages


def test_it_serves_on_a_socket_that_was_opened_for_it(program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", "--processes=2", python=with_socket())
    assert b"listening on http://127.0.0.1:%d/\n" % server.port in server.log
    server.wait_for(b"(?s)counter on.*counter on")
    assert [server.visits() for _ in range(9)] == [*range(1, 10)]
    hung = min(children(server.process.pid))  # which keeps nobody
    os.kill(hung, signal.SIGSTOP)
    try:
        assert [server.get("/healthz")[0] for _ in range(10)] == [200] * 10
    finally:
        os.kill(hung, signal.SIGCONT)
    server.stop()


@pytest.fixture
def hand_over(monkeypatch: Patch) -> Iterator[HandOver]:
    """Make sockets those that this process inherits, under numbers that nobody else has."""
    first = 900
    monkeypatch.setattr(systemd, "FIRST", first)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))

    def hand_over(*opened: socket.socket) -> None:
        monkeypatch.setenv("LISTEN_FDS", str(len(opened)))
        for descriptor, one in enumerate(opened, first):
            os.dup2(one.fileno(), descriptor)
            one.close()

    yield hand_over
    for descriptor in (first, first + 1):
        with contextlib.suppress(OSError):  # whoever took it has closed it
            os.close(descriptor)


def test_it_listens_on_all_that_are_its_own(hand_over: HandOver, monkeypatch: Patch) -> None:
    opened = [socket.create_server((host, 0)) for host in ("127.0.0.1", "127.0.0.2")]
    places = [one.getsockname() for one in opened]
    hand_over(*opened)
    with monkeypatch.context() as others:
        others.setenv("LISTEN_PID", str(os.getppid()))
        assert inherited_sockets() == []
        others.delenv("LISTEN_PID")
        assert inherited_sockets() == []
    monkeypatch.setattr("server.configure_logs", lambda *_: None)
    settings = Settings(port=1, address="192.0.2.1", admin_port=0, processes=2)
    parts = make_parts(settings, contextlib.ExitStack())
    of_one, of_other = parts.sockets
    admin = [one for those in parts.admin for one in those]
    assert [one.getsockname() for one in of_one] == places
    assert of_one == of_other
    assert not {one.getsockname() for one in admin} & {*places}
    assert not any(one.get_inheritable() or one.getblocking() for one in of_one)
    for one in (*admin, *of_one):
        one.close()


def test_what_is_no_listening_socket_is_refused(hand_over: HandOver, monkeypatch: Patch) -> None:
    def why() -> str:
        with pytest.raises(RuntimeError) as error:
            inherited_sockets()
        return str(error.value)

    none = "LISTEN_FDS: descriptor 900 is no listening TCP socket"
    local = socket.socket(socket.AF_UNIX)
    local.bind("")  # by a name that the system makes
    local.listen()
    for one in (local, socket.socket(), socket.socket(type=socket.SOCK_DGRAM)):
        hand_over(one)
        assert why() == none
    assert why() == f"{none}: Bad file descriptor"  # as the last one was closed
    for number in ("²", "", "-1"):
        monkeypatch.setenv("LISTEN_FDS", number)
        assert why() == f"LISTEN_FDS={number}: allowed is a number"


def test_process_1_hands_its_sockets_to_the_server(program: Start, tmp_path: Path) -> None:
    env = run_before(tmp_path, PROCESS_1)
    server = program(NOWHERE, python=with_socket(listen_pid="1"), **env)
    assert b"listening on http://127.0.0.1:%d/\n" % server.port in server.log
    assert server.get("/healthz")[0] == 200
