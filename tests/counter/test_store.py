"""The store in Python, in which the search runs the script, does what a real Valkey does."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from counter.connection import packed
from counter.tokens import DIGEST, SCRIPT
from tests.support.commands import SortedSet, StoreError
from tests.support.store import Store
from tests.support.valkey import Valkey

KEYS = [b"counter", b"{counter}:process:P", b"{counter}:spares"]
SETTINGS = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

at_length = pytest.mark.parametrize("examples", [40, pytest.param(300, marks=pytest.mark.slow)])


class Both:
    """The store, and a real Valkey, which are told the same."""

    def __init__(self, valkey: Valkey) -> None:
        client = redis.Redis(unix_socket_path=str(valkey.path), protocol=2)
        self._connection = client.connection_pool.get_connection()
        self._ask(b"FLUSHALL")
        self.store = Store()

    def _ask(self, *words: bytes) -> Any:
        self._connection.send_packed_command([packed(*(word.decode() for word in words))])
        try:
            return self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return StoreError(str(error))

    def run(self, *words: bytes) -> None:
        try:
            reply: Any = self.store.run(*words)
        except StoreError as error:
            reply = error
        assert _plain(reply) == _plain(self._ask(*words)), words

    def apply(self, token: bytes) -> None:
        reply = self.store.eval(KEYS, [token])
        real = self._ask(b"EVALSHA", DIGEST.encode(), b"3", *KEYS, token)
        if isinstance(real, StoreError) and str(real).startswith("No matching script"):
            real = self._ask(b"EVAL", SCRIPT, b"3", *KEYS, token)
        if isinstance(real, StoreError):
            assert reply[:1] == b"-", (token, reply, real)
        else:
            assert reply == (b":%d" % real if isinstance(real, int) else b"+" + real), token

    def compare(self) -> None:
        assert sorted(self.store.keys) == sorted(self._ask(b"KEYS", b"*"))
        for key, value in self.store.keys.items():
            if isinstance(value, bytes):
                assert self._ask(b"GET", key) == value
            elif isinstance(value, SortedSet):
                self.run(b"ZRANGE", key, b"0", b"-1", b"WITHSCORES")
            else:
                found = self._ask(b"HGETALL", key)
                assert dict(zip(found[::2], found[1::2], strict=True)) == value
            assert self._ask(b"TTL", key) in (self.store.ttls.get(key, -1), 86399)

    def close(self) -> None:
        self._connection.disconnect()


def _plain(reply: Any) -> Any:
    """Return a reply as it is compared: of an error, its kind, as the words differ by version."""
    if not isinstance(reply, StoreError):
        return reply
    text = str(reply).removeprefix("ERR ").lower()
    return "an error", "wrongtype" in text or "wrong kind" in text


@pytest.fixture(scope="module")
def shared_valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="hello-") as folder:
        server = Valkey(Path(folder))
        server.start(appendonly="no")
        yield server
        server.close()


key = st.sampled_from([b"a", b"b", b"c"])
small = st.integers(-4, 12).map(lambda n: b"%d" % n)
large = st.sampled_from([b"99999999999999", b"100000000000000", b"9223372036854775807"])
word = st.one_of(small, large, st.sampled_from([b"x", b"", b"01", b"1.5", b"+1", b"-", b" 1"]))
score = st.one_of(small, st.sampled_from([b"1.5", b"-inf", b"+inf", b"x", b"1e3", b"1e20", b""]))
limit = score.filter(bool)  # what Redis takes "" for is of no use
bound = st.one_of(limit, limit.map(lambda one: b"(" + one))
seconds = st.integers(1000, 2000).map(lambda n: b"%d" % n)

commands = st.one_of(
    st.tuples(st.just(b"GET"), key),
    st.tuples(st.just(b"EXISTS"), key),
    st.tuples(st.just(b"INCR"), key),
    st.tuples(st.just(b"INCRBY"), key, word),
    st.tuples(st.just(b"HGET"), key, word),
    st.tuples(st.just(b"HSET"), key, word, word),
    st.tuples(st.just(b"HSET"), key, word, word, word, word),
    st.tuples(st.just(b"HSET"), key, word, word, word),
    st.tuples(st.just(b"ZADD"), key, score, word),
    st.tuples(st.just(b"ZADD"), key, st.just(b"XX"), score, word),
    st.tuples(st.just(b"ZREM"), key, word),
    st.tuples(st.just(b"ZSCORE"), key, word),
    st.tuples(st.just(b"ZRANGE"), key, small, small),
    st.tuples(st.just(b"ZRANGE"), key, small, word, st.just(b"WITHSCORES")),
    st.tuples(st.just(b"ZRANGE"), key, small, small, word),
    st.tuples(st.just(b"ZRANGEBYSCORE"), key, bound, bound),
    st.tuples(st.just(b"ZREMRANGEBYSCORE"), key, bound, bound),
    st.tuples(st.just(b"GET"), key, key),
    st.tuples(st.just(b"INCRBY"), key),
)


@at_length
def test_the_store_answers_commands_as_valkey_does(examples: int, shared_valkey: Valkey) -> None:
    @hypothesis.settings(SETTINGS, max_examples=examples)
    @given(st.lists(commands, max_size=30))
    def check(words: list[tuple[bytes, ...]]) -> None:
        with closing(Both(shared_valkey)) as both:
            for one in words:
                both.run(*one)
            both.compare()

    check()


#: A counter's values, those past which Lua is inexact among them.
counts = st.sampled_from([0, 5, 20, 10**14 - 3, 10**14, 2**53, 2**63 - 3, -7, -(10**14) - 1])
groups = st.lists(st.tuples(st.integers(-3, 24), st.integers(0, 3)), max_size=6)
odd = st.sampled_from([(b"x", b"3"), (b"", b"2"), (b"1.5", b"4"), (b"9", b"2"), (b"7", b"7.5")])


@st.composite
def tokens(draw: st.DrawFn) -> bytes:
    """What a token says, of the form that the script is sent."""
    unshown = draw(groups)[:3]
    numbers = [draw(st.integers(1, 8)), draw(st.integers(0, 9)), 0, draw(st.integers(0, 8))]
    numbers.append(draw(st.integers(0, 1)))
    return b"%d %d %d %d %d" % tuple(numbers) + b"".join(b" %d %d" % one for one in unshown)


@at_length
def test_the_script_does_the_same_in_the_store(examples: int, shared_valkey: Valkey) -> None:
    @hypothesis.settings(SETTINGS, max_examples=examples)
    @given(counts, groups, st.lists(odd, max_size=1), st.lists(tokens(), max_size=8))
    def check(
        count: int,
        spare: list[tuple[int, int]],
        unreadable: list[tuple[bytes, bytes]],
        sent: list[bytes],
    ) -> None:
        with closing(Both(shared_valkey)) as both:
            both.run(b"INCRBY", KEYS[0], b"%d" % count)
            for last, size in spare:
                both.run(b"ZADD", KEYS[2], b"%d" % last, b"%d" % (last - size + 1))
            for member, value in unreadable:
                both.run(b"ZADD", KEYS[2], value, member)
            for token in sent:
                both.apply(token)
            both.compare()

    check()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrong", [b"SET", b"HSET", b"ZADD"])
def test_keys_of_wrong_types_fail_alike(shared_valkey: Valkey, key: bytes, wrong: bytes) -> None:
    with closing(Both(shared_valkey)) as both:
        if wrong == b"SET":
            both._ask(b"SET", key, b"x")
            both.store.keys[key] = b"x"
        else:
            both.run(wrong, key, b"1", b"2")
        for token in (b"1 2 0 0 1", b"2 1 2 1 0 1 1", b"3 0 0 0 0"):
            both.apply(token)
        both.compare()
