"""Under a service manager: messages to it, and sockets from it."""

import contextlib
import os
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
from tests.support.before import run_before
from tests.support.here import refused
from tests.support.processes import children
from tests.support.program import NOWHERE, Start, run_to_end
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

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


class Manager:
    def __init__(self, place: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(place.replace("@", "\0", 1))
        self._socket.settimeout(PATIENCE)
        self.place = place

    def told(self) -> tuple[str, int]:
        """Return the next message, and the process that sent it (unix(7), SCM_CREDENTIALS)."""
        room = socket.CMSG_SPACE(struct.calcsize("3i"))
        data, [(_, _, credentials)], *_ = self._socket.recvmsg(4096, room)
        return data.decode(), struct.unpack("3i", credentials)[0]

    def is_told_more(self) -> bool:
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return bool(self._socket.recv(4096))
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a path"])
def manager(request: pytest.FixtureRequest, folder: Path) -> Iterator[Manager]:
    is_path = request.param == "a path"
    manager = Manager(f"{folder}/notify" if is_path else f"@{folder}/notify")
    yield manager
    manager.close()


@pytest.mark.parametrize(
    ("manager", "processes"), [("a path", 1), ("an abstract name", 2)], indirect=["manager"]
)
def test_it_is_ready_when_it_listens_and_says_that_it_stops(
    program: Start, manager: Manager, processes: int
) -> None:
    server = program(
        *(NOWHERE, f"--processes={processes}", "--drain-delay=1"),
        wait=False,
        NOTIFY_SOCKET=manager.place,
    )
    assert manager.told() == ("READY=1", server.process.pid)
    server.port = int(server.wait_for(rb"listening on http://\S+:(\d+)/")[1])
    server.url = f"http://127.0.0.1:{server.port}"
    assert server.get("/healthz")[0] == 200
    server.signal()
    assert manager.told() == ("STOPPING=1", server.process.pid), "before it has drained"
    assert server.process.poll() is None
    assert server.wait() == 0
    assert not manager.is_told_more()


def test_it_is_not_ready_when_it_cannot_start(manager: Manager, tmp_path: Path) -> None:
    missing = f"--tls-cert={tmp_path}/none", f"--tls-key={tmp_path}/none"
    refused(run_to_end("--port=0", *missing, NOTIFY_SOCKET=manager.place), 1)
    assert not manager.is_told_more()


def test_who_asks_for_no_messages_gets_none_and_one_that_cannot_be_sent_is_a_line_in_the_log(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    assert not caplog.messages
    for place in ("/nowhere/notify", "@nobody-reads-this", "/" + "x" * 200):
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        notify("READY=1")
        (line,) = caplog.messages
        assert line.startswith("cannot send READY=1 to NOTIFY_SOCKET: ")
        caplog.clear()
    # A manager that reads nothing does not hold it up.
    monkeypatch.setenv("NOTIFY_SOCKET", manager.place)
    monkeypatch.setattr(systemd, "PATIENCE", 0.01)
    while not caplog.messages:
        notify("READY=1")
    assert caplog.messages == ["cannot send READY=1 to NOTIFY_SOCKET: timed out"]


@pytest.mark.parametrize("processes", [1, 2])
def test_it_serves_on_a_socket_that_was_opened_for_it_and_one_that_hangs_keeps_nobody(
    program: Start, valkey: Valkey, processes: int
) -> None:
    flags = (f"--redis-url={valkey.url}", f"--processes={processes}")
    server = program(*flags, python=with_socket())
    assert b"listening on http://127.0.0.1:%d/\n" % server.port in server.log
    server.wait_for(b"(?s)" + b".*".join([b"counter on"] * processes))
    assert [server.visits() for _ in range(9)] == [*range(1, 10)]
    if processes > 1:
        hung = min(children(server.process.pid))
        os.kill(hung, signal.SIGSTOP)
        try:
            assert [server.get("/healthz")[0] for _ in range(10)] == [200] * 10
        finally:
            os.kill(hung, signal.SIGCONT)
    server.stop()


@pytest.fixture
def hand_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make sockets those that this process inherits, under numbers that nobody else has."""
    first, last = 900, 900

    def hand_over(*opened: socket.socket) -> None:
        nonlocal last
        for one in opened:
            os.dup2(one.fileno(), last)
            one.close()
            last += 1
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(len(opened)))

    monkeypatch.setattr(systemd, "FIRST", first)
    yield hand_over
    for descriptor in range(first, last):
        with contextlib.suppress(OSError):  # whoever took it has closed it
            os.close(descriptor)


def test_it_listens_on_all_that_were_opened_hands_none_on_and_the_admin_port_is_none_of_them(
    hand_over: Callable[..., None],
) -> None:
    opened = [socket.create_server((host, 0)) for host in ("127.0.0.1", "127.0.0.2")]
    places = [one.getsockname() for one in opened]
    hand_over(*opened)
    settings = Settings(port=1, address="192.0.2.1", admin_port=0)
    ((admin,),) = listen(settings, admin=True)
    of_one, of_other = listen(settings, processes=2)
    assert [one.getsockname() for one in of_one] == places
    assert admin.getsockname() not in places
    assert of_one == of_other
    assert not any(one.get_inheritable() or one.getblocking() for one in of_one)
    for one in (admin, *of_one):
        one.close()


def test_those_of_another_process_are_left_alone(
    hand_over: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(socket.create_server(("127.0.0.1", 0)))
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    assert inherited_sockets() == []
    monkeypatch.delenv("LISTEN_PID")
    assert inherited_sockets() == []


NONE = "LISTEN_FDS: descriptor 900 is no listening TCP socket"


@pytest.mark.parametrize(
    ("family", "kind", "number", "why"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, "1", NONE),
        (socket.AF_INET, socket.SOCK_STREAM, "1", NONE),
        (socket.AF_INET, socket.SOCK_DGRAM, "1", NONE),
        (None, None, "1", f"{NONE}: Bad file descriptor"),
        *((None, None, one, f"LISTEN_FDS={one}: allowed is a number") for one in ("²", "", "-1")),
    ],
)
def test_what_is_no_listening_tcp_socket_is_refused(
    hand_over: Callable[..., None],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: socket.AddressFamily | None,
    kind: socket.SocketKind,
    number: str,
    why: str,
) -> None:
    if family:
        one = socket.socket(family, kind)
        one.bind(f"{folder}/page" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        if family == socket.AF_UNIX:
            one.listen()
        hand_over(one)
    else:
        hand_over()
    monkeypatch.setenv("LISTEN_FDS", number)
    with pytest.raises(RuntimeError) as error:
        inherited_sockets()
    assert str(error.value) == why


def test_process_1_hands_its_sockets_to_the_server(program: Start, tmp_path: Path) -> None:
    env = run_before(tmp_path, PROCESS_1)
    server = program(NOWHERE, python=with_socket(listen_pid="1"), **env)
    assert b"listening on http://127.0.0.1:%d/\n" % server.port in server.log
    assert server.get("/healthz")[0] == 200
