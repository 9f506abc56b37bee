"""What was really sent to Redis, and answered; `tests/support/replayed.py` checks it."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from counter.connection import RedisConnection
from tests.support.before import run_before


class Event(NamedTuple):
    """A request that was sent, or its reply that was read."""

    connection: str
    is_reply: bool
    line: bytes


class Trace:
    """Requests and replies, in a file to which several processes may write.

    :arg path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._path = path

    def sent(self, connection: object, command: bytes) -> None:
        self._write(connection, False, command)

    def got(self, connection: object, reply: bytes) -> None:
        self._write(connection, True, reply)

    def _write(self, connection: object, is_reply: bool, line: bytes) -> None:
        name = f"{os.getpid()}:{id(connection)}"
        os.write(self._file, json.dumps([name, is_reply, line.decode("latin-1")]).encode() + b"\n")

    def events(self) -> list[Event]:
        lines = map(json.loads, self._path.read_text().splitlines())
        return [Event(name, is_reply, line.encode("latin-1")) for name, is_reply, line in lines]

    def close(self) -> None:
        os.close(self._file)


@contextlib.contextmanager
def recording(path: Path) -> Iterator[Trace]:
    """Write what this process sends to Redis to a file, until the end of the context."""
    trace = Trace(path)
    write, take = RedisConnection._write, RedisConnection._take

    def noting_write(self: RedisConnection, command: bytes) -> None:
        trace.sent(self, command + self._request.arguments)
        write(self, command)

    def noting_take(self: RedisConnection, line: bytes) -> Exception | None:
        if self._position == 0:
            trace.got(self, line)
        return take(self, line)

    with patch.multiple(RedisConnection, _write=noting_write, _take=noting_take):
        yield trace
    trace.close()


def recorded(folder: Path, path: Path) -> dict[str, str]:
    """Return the variables with which a program writes what it sends to Redis to a file.

    :arg folder: for this alone.
    """
    code = "from pathlib import Path; from tests.support.traces import recording"
    return run_before(folder, f"{code}; one = recording(Path({str(path)!r})); one.__enter__()")
