"""A real Valkey that is given a state, runs a request as the server sends it, and is read again."""

import functools
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counter.connection import bulk
from counter.tokens import SCRIPT
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
        self.forbid()
        self.run(b"FLUSHALL")
        self.run(b"SCRIPT", b"LOAD", SCRIPT)

    def run(self, *words: bytes) -> Any:
        [reply] = self._run([words])
        assert not isinstance(reply, bytes) or reply[:1] != b"-", reply
        return int(reply[1:]) if isinstance(reply, bytes) and reply[:1] == b":" else reply

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

    def forbid(self, *names: str) -> None:
        """Let an access list forbid commands, and allow all others."""
        rules = ["+@all", *(f"-{name}" for name in names)]
        self.client.acl_setuser("default", enabled=True, commands=rules)

    def ran(self) -> dict[str, int]:
        """Return how often each command ran since this was asked last, in scripts or not."""
        stats = self.client.info("commandstats")
        self.client.config_resetstat()
        return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}


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
    """Return the words of a command as it is sent."""
    words, at = [], sent.index(b"\r\n") + 2
    for _ in range(int(sent[1 : at - 2])):
        end = sent.index(b"\r\n", at)
        length, at = int(sent[at + 1 : end]), end + 2
        words.append(sent[at : at + length])
        at += length + 2
    assert at == len(sent)
    return words
