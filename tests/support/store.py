"""A real Valkey that is given a state, runs a request as the server sends it, and is read again."""

import functools
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counter.connection import Request, bulk
from counter.tokens import SCRIPT, Tokens
from tests.support.valkey import Valkey

#: What Redis has: each key and its value; of a hash or a sorted set, fields or members with theirs.
State = dict[bytes, bytes | tuple[tuple[bytes, bytes], ...]]


@functools.cache
def _server() -> tuple[Valkey, Any]:
    server = Valkey(Path(tempfile.mkdtemp(prefix="hello-")))
    server.start(appendonly="no")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.path))
        return server, sock.makefile("rwb")


def end() -> None:
    """End the Valkey of this process, if there is one."""
    if _server.cache_info().currsize:
        server, _ = _server()
        server.close()
        shutil.rmtree(server.folder)


class Store:
    """The Valkey of this process, emptied. Of several, the last one is to be used."""

    def __init__(self) -> None:
        server, self._stream = _server()
        self.client = server.client
        self.client.acl_setuser("default", enabled=True, commands=["+@all"])
        self.client.flushall()
        self.client.script_load(SCRIPT)

    def answer(self, sent: bytes) -> bytes:
        """Run a command as it is sent; return the reply's line."""
        return bytes(self._run([unpacked(sent)])[0])

    def _run(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        for words in commands:
            self._stream.write(b"*%d\r\n%b" % (len(words), b"".join(map(bulk, words))))
        self._stream.flush()
        return [self._reply() for _ in commands]

    def _reply(self) -> Any:
        line = self._stream.readline()[:-2]
        if line[:1] == b"*":
            return [self._reply() for _ in range(int(line[1:]))]
        if line[:1] != b"$":
            return line
        return None if line == b"$-1" else self._stream.read(int(line[1:]) + 2)[:-2]

    def applied(self, state: State, sent: bytes) -> tuple[State, bytes]:
        """Run a command as it is sent on a state; return the state then, and the reply's line."""
        words = unpacked(sent)
        keys = words[3:6] if words[0].startswith(b"EVAL") else words[1:2]
        write = [[b"DEL", *keys], *(_writing(key, state[key]) for key in keys if key in state)]
        read = [*map(_reading, keys), *([b"TTL", key] for key in keys)]
        line, *found = self._run([*write, words, *read])[len(write) :]
        values, ttls = found[: len(keys)], found[len(keys) :]
        assert {*ttls[::2]} <= {b":-1", b":-2"}, "the counter and the spare numbers last"
        assert line[:1] == b"-" or ttls[1:2] == [b":90000"] or state.keys() >= {*keys[1:2]}
        after = state | {key: _value(reply) for key, reply in zip(keys, values, strict=True)}
        return {key: value for key, value in after.items() if value}, bytes(line)


def _writing(key: bytes, value: bytes | tuple[tuple[bytes, bytes], ...]) -> list[bytes]:
    if isinstance(value, bytes):
        return [b"SET", key, value]
    if key.endswith(b":spares"):
        return [b"ZADD", key, *(word for member, score in value for word in (score, member))]
    return [b"HSET", key, *(word for pair in value for word in pair)]


def _reading(key: bytes) -> list[bytes]:
    if key.endswith(b":spares"):
        return [b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]
    return [b"HGETALL" if b":process:" in key else b"GET", key]


def _value(reply: Any) -> bytes | tuple[tuple[bytes, bytes], ...]:
    if isinstance(reply, list):
        return tuple(sorted(zip(reply[::2], reply[1::2], strict=True)))
    return reply or b""


def unpacked(sent: bytes) -> list[bytes]:
    """Return the words of a command as it is sent, none of which has a line's end."""
    return sent.split(b"\r\n")[2::2]


class LosingTokens(Tokens):
    """Tokens for whose replies nobody waits once there is a newer one."""

    def request(self, visits: int) -> Request:
        self.abandon()
        return super().request(visits)
