"""DIR: nobody else can write to it, and its Valkey's socket is where one can be."""

import errno
import os
import re
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from embedded.folder import SharedError, prepare, socket_folder
from tests.support.before import run_before
from tests.support.embedded import only_line, valkey_of
from tests.support.processes import processes_in
from tests.support.program import Program, run_to_end
from tests.support.waiting import wait_until

Start = Callable[..., Program]

#: Runs before a program: as on a file system that takes no Unix sockets, such as vfat.
NO_SOCKETS = """
import errno, socket
def bind(self, address, bind=socket.socket.bind):
    if isinstance(address, str) and "data/run" in address:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")
    bind(self, address)
socket.socket.bind = bind
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757, 0o720])
def test_a_folder_that_others_may_write_to_is_refused_and_not_changed(
    data: Path, mode: int
) -> None:
    data.mkdir()
    data.chmod(mode)
    with pytest.raises(SharedError, match=rf"mode is {mode:04o}; change that \(chmod go-w\)"):
        prepare(data)
    assert (mode_of(data), list(data.iterdir())) == (mode, [])


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o2755])
def test_a_folder_that_others_may_read_is_taken_as_it_is(data: Path, mode: int) -> None:
    data.mkdir()
    data.chmod(mode)
    prepare(data)
    assert (mode_of(data), [one.name for one in data.iterdir()]) == (mode, ["run"])


def test_what_is_in_it_is_for_its_user_alone(data: Path) -> None:
    for name in ("run", "appendonlydir"):
        (data / name).mkdir(parents=True)
        (data / name).chmod(0o777)
    data.chmod(0o755)
    prepare(data)
    assert [mode_of(one) for one in data.iterdir()] == [0o700, 0o700]


def test_a_file_system_without_modes_is_taken_as_it_is(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vfat and many shared folders: everything has one mode, and it cannot be changed."""

    def chmod(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    def mkdir(path: str, mode: int = 0o777, mkdir: Callable[[str], None] = os.mkdir) -> None:
        mkdir(path)
        os.chmod(path, 0o777)

    monkeypatch.setattr(Path, "chmod", chmod)
    monkeypatch.setattr(os, "mkdir", mkdir)
    for _ in range(2):
        prepare(data)
    assert mode_of(data) == 0o777


def test_a_shared_folder_is_one_line_and_nothing_is_started(data: Path) -> None:
    data.mkdir()
    data.chmod(0o777)
    line = only_line(run_to_end("--port=0", f"--redis-url=embedded:{data}"))
    assert f"embedded:{data}: others may write to it, as its mode is 0777; change that" in line
    assert not list(data.iterdir())


def test_what_valkey_writes_is_for_its_user_alone(counting: Start, data: Path) -> None:
    data.mkdir(mode=0o755)
    assert counting(f"--redis-url=embedded:{data}").visits() == 1
    written = {one.name: mode_of(one) & 0o077 for one in data.iterdir()}
    assert written == {"run": 0, "appendonlydir": 0, "valkey.log": 0}


def has_private_socket(server: Program, within: Path) -> Path:
    """Return the folder of a program's socket, which stands in its log."""
    match = server.wait_for(rb"the socket is in (\S+), as it cannot be in DIR")
    private = Path(os.fsdecode(match[1]))
    assert private.parent == within
    assert mode_of(private) == 0o700
    with redis.Redis(unix_socket_path=str(private / "valkey.sock")) as client:
        assert client.get("counter") == b"1"
    return private


@pytest.mark.parametrize(
    "signum", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_in_a_folder_without_sockets_it_is_in_a_private_one_that_is_removed(
    signum: signal.Signals, program: Start, data: Path, tmp_path: Path, folder: Path
) -> None:
    names = {"XDG_RUNTIME_DIR": str(folder)} | run_before(tmp_path, NO_SOCKETS)
    server = program(f"--redis-url=embedded:{data}", **names)
    wait_until(lambda: server.visits() == 1)
    private = has_private_socket(server, folder)
    os.kill(valkey_of(data), signal.SIGKILL)
    server.wait_for(b"Valkey ended by SIGKILL; starting it again")
    wait_until(lambda: server.visits() == 2)
    server.signal(signum)
    server.wait()
    wait_until(lambda: not processes_in(data))
    assert not private.exists()
    assert [one.name for one in folder.iterdir()] == ["data"]


@pytest.mark.parametrize("runtime", ["", pytest.param("missing", marks=pytest.mark.slow)])
def test_without_a_runtime_folder_it_is_in_the_one_for_what_is_temporary(
    runtime: str, program: Start, folder: Path
) -> None:
    deep = folder / ("d" * 60) / ("é" * 30)  # each é is two bytes, and a path has 107 at most
    elsewhere = {"XDG_RUNTIME_DIR": runtime and str(folder / runtime), "TMPDIR": str(folder)}
    server = program(f"--redis-url=embedded:{deep}", **elsewhere)
    wait_until(lambda: server.visits() == 1)
    has_private_socket(server, folder)
    server.signal()
    assert server.wait() == 0
    assert [one.name for one in folder.iterdir()] == ["d" * 60]


def test_where_a_socket_can_be_nowhere_it_says_why(
    data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(one: socket.socket, address: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(socket.socket, "bind", bind)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    prepare(data)
    with (
        pytest.raises(OSError, match=re.escape(os.strerror(errno.EOPNOTSUPP))),
        socket_folder(data),
    ):
        pass
    assert [one.name for one in folder.iterdir()] == ["data"]
