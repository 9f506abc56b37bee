"""A store in Python that runs the counter's real script, byte for byte, in the Lua of Redis."""

from collections.abc import Sequence

import lupa.lua51  # type: ignore[import-untyped]

from counter.tokens import DIGEST, SCRIPT
from tests.support.commands import Commands, StoreError


class Store(Commands):
    """Keys and their values, commands, and the script."""

    def eval(self, keys: Sequence[bytes], arguments: Sequence[bytes]) -> bytes:
        """Run the counter's script; return the reply's line as it is sent."""
        try:
            return _script(self, keys, arguments)
        except StoreError as error:
            return b"-" + str(error).encode()

    def answer(self, sent: bytes) -> bytes:
        """Run a command as it is sent; return the reply's line, without its end."""
        words = unpacked(sent)
        if words[0] in (b"EVALSHA", b"EVAL"):
            assert words[1] in (DIGEST.encode(), SCRIPT)
            count = int(words[2])
            return self.eval(words[3 : 3 + count], words[3 + count :])
        try:
            reply = self.run(*words)
        except StoreError as error:
            return b"-" + str(error).encode()
        assert isinstance(reply, int)
        return b":%d" % reply


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


# The script, in the Lua that Redis has.

_lua = lupa.lua51.LuaRuntime(encoding=None, register_eval=False, unpack_returned_tuples=False)
_compiled = _lua.eval("function(text) return assert(loadstring(text)) end")(SCRIPT)
_globals = _lua.globals()


def _script(store: Store, keys: Sequence[bytes], arguments: Sequence[bytes]) -> bytes:
    def call(name: bytes, *words: bytes | float) -> object:
        sent = [word if isinstance(word, bytes) else b"%.17g" % word for word in words]
        assert sent[0] in keys, "a script may use no key that it does not name"
        reply = store.run(name, *sent)
        if isinstance(reply, list):
            return _lua.table_from(reply)
        return False if reply is None else reply

    def pcall(*words: bytes) -> object:
        try:
            return call(*words)
        except StoreError as error:
            return _lua.table_from({b"err": str(error).encode()})

    _globals[b"redis"] = _lua.table_from({b"call": call, b"pcall": pcall})
    _globals[b"KEYS"], _globals[b"ARGV"] = _lua.table_from(keys), _lua.table_from(arguments)
    result = _compiled()
    if isinstance(result, (int, float)):
        return b":%d" % int(result)
    if result[b"err"] is not None:
        raise StoreError(bytes(result[b"err"]).decode())
    return b"+" + bytes(result[b"ok"])
