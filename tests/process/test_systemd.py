"""Under a service manager: messages to it, and sockets from it."""

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config import Settings
from process import inherited_sockets, notify, systemd
from server import listen
from tests.process.test_init import PROCESS_1
from tests.support import Caplog, Patch
from tests.support.before import run_before
from tests.support.here import refused
from tests.support.processes import children
from tests.support.program import NOWHERE, Start, run_to_end
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

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
    server.port = int(server.wait_for(rb"listening on http://\S+:(\d+)/")[1])
    server.url = f"http://127.0.0.1:{server.port}"
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
    settings = Settings(port=1, address="192.0.2.1", admin_port=0)
    ((admin,),) = listen(settings, admin=True)
    of_one, of_other = listen(settings, processes=2)
    assert [one.getsockname() for one in of_one] == places
    assert admin.getsockname() not in places
    assert of_one == of_other
    assert not any(one.get_inheritable() or one.getblocking() for one in of_one)
    for one in (admin, *of_one):
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
