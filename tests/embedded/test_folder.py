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

from embedded import running
from embedded.folder import prepare, socket_folder
from tests.embedded.conftest import Keep
from tests.embedded.test_start import refused
from tests.support import Patch
from tests.support.counting import counting
from tests.support.embedded import valkey_of

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757, 0o720])
def test_a_folder_that_others_may_write_to_is_refused_unchanged(data: Path, mode: int) -> None:
    data.mkdir()
    data.chmod(mode)
    line = f"other users may write to it, as its mode is {mode:04o}; change the mode (chmod go-w)"
    assert line in refused(data)
    assert (mode_of(data), list(data.iterdir())) == (mode, [])


def test_a_folder_that_is_missing_is_made_for_its_user_alone(folder: Path) -> None:
    prepare(folder / "new/data")
    assert mode_of(folder / "new/data") == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o2755])
def test_a_folder_that_others_may_read_is_taken_as_it_is(data: Path, mode: int) -> None:
    for _ in range(2):
        data.mkdir(exist_ok=True)
        data.chmod(mode)
        prepare(data)
        assert (mode_of(data), mode_of(data / "run")) == (mode, 0o700)
        (data / "appendonlydir").mkdir(exist_ok=True)
        assert {one.name for one in data.iterdir()} == {"run", "appendonlydir"}
        for one in data.iterdir():
            one.chmod(0o777)
    prepare(data)
    assert [mode_of(one) for one in data.iterdir()] == [0o700, 0o700]


def test_a_file_system_without_modes_is_taken_as_it_is(data: Path, monkeypatch: Patch) -> None:
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


def no_socket(one: socket.socket, address: object) -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


@pytest.fixture
def without_sockets(folder: Path, monkeypatch: Patch) -> None:
    """Let no socket be in DIR, as on vfat, but in the runtime folder."""

    def bind(one: socket.socket, address: str, bind: Callable = socket.socket.bind) -> None:
        (no_socket if "data/run" in address else bind)(one, address)

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(socket.socket, "bind", bind)


@pytest.mark.usefixtures("without_sockets")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_in_a_folder_without_sockets_it_is_in_a_private_one_that_is_removed(
    signum: signal.Signals, keep: Keep, data: Path, folder: Path
) -> None:
    server = keep()
    (private,) = folder.glob("friendlyhello-*")
    assert mode_of(private) == 0o700
    assert (private / "valkey.sock").is_socket()
    assert f"the socket is in {private}, as it cannot be in DIR".encode() in server.log
    os.kill(valkey_of(data), signal.SIGKILL)
    server.wait_for(b"Valkey ended by SIGKILL; starting it again")
    server.end(signum)
    server.wait_gone()
    assert [one.name for one in folder.iterdir()] == ["data"]


@pytest.mark.usefixtures("without_sockets")
def test_without_a_fork_no_folder_is_left(data: Path, folder: Path, monkeypatch: Patch) -> None:
    def fork() -> int:
        assert list(folder.glob("friendlyhello-*"))
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    with (
        pytest.raises((OSError, RuntimeError), match=os.strerror(errno.EAGAIN)),
        running(str(data)),
    ):
        pass
    assert [one.name for one in folder.iterdir()] == ["data"]


@pytest.mark.parametrize("runtime", ["", "missing"])
async def test_without_a_runtime_folder_it_is_in_the_one_for_what_is_temporary(
    runtime: str, folder: Path, monkeypatch: Patch
) -> None:
    deep = folder / ("d" * 60) / ("é" * 30)  # each é is two bytes, and a path has 107 at most
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime and str(folder / runtime))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with running(str(deep)) as url:
        (private,) = set(os.listdir(folder)) - {"d" * 60}
        assert private in url
        async with counting(url) as visits:
            assert await visits.count() == 1
    assert os.listdir(folder) == ["d" * 60]


def test_where_no_socket_can_be_it_says_why(data: Path, folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(socket.socket, "bind", no_socket)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    prepare(data)
    with (
        pytest.raises(OSError, match=re.escape(os.strerror(errno.EOPNOTSUPP))),
        socket_folder(data),
    ):
        pass
    assert [one.name for one in folder.iterdir()] == ["data"]
