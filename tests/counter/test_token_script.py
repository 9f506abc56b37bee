"""What `token.lua` does with a token, in a real Valkey."""

import re
from typing import Any

import pytest

from counter.connection import Request
from counter.tokens import SCRIPT, Tokens
from tests.support.counting import KEPT
from tests.support.losing import LosingTokens
from tests.support.store import Store

SPARES = b"{counter}:spares"

#: Lets a counter be near the end of what Redis can count.
END = f"SET counter {2**63 - 2}"

#: All that the script asks of an access list.
COMMANDS = [
    *("HGET", "EXPIRE", "INCRBY", "HSET", "GET"),
    *("ZREMRANGEBYSCORE", "ZRANGEBYSCORE", "ZSCORE", "ZREM", "ZADD", "ZRANGE"),
]


class Redis(Store):
    def ask(self, request: Request) -> bytes:
        return self.answer(request.command + request.arguments)

    @property
    def counter(self) -> int:
        return int(self.run(b"GET", b"counter") or 0)

    @counter.setter
    def counter(self, value: int) -> None:
        self.run(b"SET", b"counter", b"%d" % value)

    @property
    def spares(self) -> list[int]:
        words: Any = self.run(b"ZRANGE", SPARES, b"0", b"-1", b"WITHSCORES")
        pairs = zip(words[::2], words[1::2], strict=True)
        return [n for first, last in pairs for n in range(int(first), int(last) + 1)]

    def spare(self, first: int, last: int) -> None:
        self.run(b"ZADD", SPARES, b"%d" % last, b"%d" % first)

    def record(self, tokens: Tokens) -> dict[bytes, bytes]:
        words = self.run(b"HGETALL", tokens.key.encode())
        return dict(zip(words[::2], words[1::2], strict=True))

    def ttl(self, tokens: Tokens) -> object:
        return self.run(b"TTL", tokens.key.encode())

    def forget(self, tokens: Tokens) -> None:
        self.run(b"DEL", tokens.key.encode())

    def ran(self) -> dict[str, int]:
        """Return how often each of the script's commands ran since this was asked last."""
        return {name: n for name, n in super().ran().items() if name.upper() in COMMANDS}


@pytest.fixture
def it() -> Redis:
    return Redis()


@pytest.fixture
def tokens() -> Tokens:
    return LosingTokens("counter")


@pytest.fixture
def other() -> Tokens:
    return LosingTokens("counter")


def count(it: Redis, tokens: Tokens, visits: int) -> list[int]:
    request = tokens.request(visits)
    return [n for one in tokens.numbers(it.ask(request), request) for n in one]


def give_back(tokens: Tokens, *numbers: int) -> None:
    for number in numbers:
        tokens.give_back(range(number, number + 1))


def test_a_token_that_comes_again_or_late_changes_nothing(it: Redis, tokens: Tokens) -> None:
    it.counter = 10
    it.spare(3, 5)
    request, newer = tokens.request(6), tokens.request(3)
    replies = [it.ask(request) for _ in range(3)]
    assert replies == [b"+1 5 3 13 3"] * 3
    assert (it.counter, it.ttl(tokens)) == (13, KEPT)
    assert it.ask(newer) == b"+2 5 3"
    assert it.ask(request) == b"+2 5 3"
    assert (it.counter, it.spares) == (13, [11, 12, 13])


def test_numbers_of_a_lost_reply_are_left_over(it: Redis, tokens: Tokens, other: Tokens) -> None:
    assert count(it, tokens, 2) == [1, 2]
    it.ask(tokens.request(3))
    assert count(it, tokens, 0) == []
    assert it.spares == [3, 4, 5]
    assert count(it, other, 4) == [3, 4, 5, 6]
    it.ask(other.request(0))  # it asks for none, so it leaves none
    assert count(it, other, 1) == [7]
    assert it.run(b"EXISTS", SPARES) == 0
    assert not other.has_dropped


def test_a_visit_costs_four_commands_where_nothing_is_spare(it: Redis, tokens: Tokens) -> None:
    for number, begins_anew in enumerate((True, False, True, False), 1):
        if begins_anew:
            it.forget(tokens)
        it.ran()
        request = tokens.request(1)
        assert it.ask(request) == b":%d" % number
        tokens.numbers(b":%d" % number, request)
        begun = {"expire": 1, "incrby": 2, "hset": 2} if begins_anew else {"incrby": 1, "hset": 1}
        assert it.ran() == {"hget": 1, "zrange": 1} | begun
        assert it.record(tokens).keys() == {b"token", b"visits"}


@pytest.mark.parametrize("start", [0, -6, 6])
def test_what_is_given_back_is_next(it: Redis, tokens: Tokens, other: Tokens, start: int) -> None:
    it.counter = start
    count(it, tokens, 5)
    give_back(tokens, start + 2, start + 4)
    assert count(it, tokens, 0) == []
    assert it.record(tokens)[b"visits"] == b"3"
    assert it.spares == [start + 2, start + 4]
    assert count(it, other, 1) == [start + 2]
    assert count(it, other, 2) == [start + 4, start + 6]
    for number in range(start + 7, start + 19):  # sequence numbers are compared as numbers
        assert count(it, tokens, 1) == [number]


def test_neighbours_are_a_group_whose_rest_stays(it: Redis, tokens: Tokens, other: Tokens) -> None:
    count(it, tokens, 9)
    for number in (2, 6, 3, 5, 4, 8, 1):
        give_back(tokens, number)
        count(it, tokens, 0)
    assert it.run(b"ZRANGE", SPARES, b"0", b"-1", b"WITHSCORES") == [b"1", b"6", b"8", b"8"]
    assert it.run(b"TTL", SPARES) == -1, "they do not expire"
    assert [count(it, other, 2), it.spares] == [[1, 2], [3, 4, 5, 6, 8]]
    assert [count(it, other, 3), it.spares] == [[3, 4, 5], [6, 8]]


def test_spare_numbers_are_below_the_counter(it: Redis, tokens: Tokens, other: Tokens) -> None:
    it.counter = 5
    for first, last in ((1, 1), (5, 5), (6, 6), (4, 8)):
        it.spare(first, last)
    assert count(it, other, 3) == [1, 5, 6]
    count(it, tokens, 2)
    it.counter = 7
    give_back(tokens, 7, 8)
    assert count(it, tokens, 1) == [8]
    assert it.spares == []
    it.counter += 2  # plain commands count in between, and nobody may give back their numbers
    assert count(it, tokens, 1) == [11]
    give_back(tokens, 11)
    it.forget(tokens)  # a stale replica does not know of that token
    assert count(it, tokens, 1) == [12]
    assert it.spares == []


@pytest.mark.parametrize("groups", [10_000, 50_000])
def test_however_many_groups_the_time_is_bounded(it: Redis, tokens: Tokens, groups: int) -> None:
    it.counter = 3 * groups
    spares = [b"%d" % n for n in range(1, 2 * groups, 2)]
    it.run(b"ZADD", SPARES, *(word for word in spares for _ in range(2)))
    it.ran()
    assert count(it, tokens, 1) == [1]
    assert sum(it.ran().values()) <= 16
    give_back(tokens, 1)
    new = [*range(3 * groups + 1, 3 * groups + 5000 - 128)]
    it.ran()
    assert count(it, tokens, 5000) == [*range(1, 259, 2), *new]
    assert sum(it.ran().values()) <= 150


@pytest.mark.parametrize("odd", ["HSET counter 1 2", "SET counter abc", "SET counter 1.5", END])
def test_without_a_counter_spare_numbers_stay(it: Redis, tokens: Tokens, odd: str) -> None:
    count(it, tokens, 3)
    it.spare(1, 2)
    it.run(b"DEL", b"counter")
    it.run(*odd.encode().split())
    assert it.ask(tokens.request(9))[:1] == b"-"
    assert it.spares == [1, 2]
    assert it.record(tokens)[b"token"] == b"1 3 3"


@pytest.mark.parametrize("score", [b"9", b"3.5", b"inf"])
@pytest.mark.parametrize("member", [b"x", b"", b"1.5", b"10"])
def test_odd_groups_are_dropped(it: Redis, tokens: Tokens, member: bytes, score: bytes) -> None:
    it.counter = 9
    it.run(b"ZADD", SPARES, score, member)
    it.spare(2, 3)
    it.spare(5, 9)
    assert count(it, tokens, 8) == [2, 3, *range(5, 11)]
    assert it.spares == []
    assert tokens.has_dropped == (score != b"inf")


def test_the_time_of_a_record_begins_anew_when_it_is_asked(it: Redis, tokens: Tokens) -> None:
    def seconds_after(request: Request) -> object:
        it.run(b"EXPIRE", tokens.key.encode(), b"10")
        it.ask(request)
        return it.ttl(tokens)

    count(it, tokens, 1)
    usual = tokens.request(1)
    assert seconds_after(usual) == 10
    assert seconds_after(usual) == KEPT  # as it came again
    tokens.numbers(it.ask(usual), usual)
    tokens.renew()
    assert seconds_after(tokens.request(1)) == KEPT


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(("visits", "spares"), [(0, []), (3, []), (3, [2, 3, 6, 8])])
def test_a_forbidden_command_costs_nobody_a_number(
    it: Redis, tokens: Tokens, other: Tokens, name: str, visits: int, spares: list[int]
) -> None:
    """The script is refused before it has changed what numbers rest on."""
    shown = count(it, tokens, 12)
    for number in spares:
        it.spare(number, number)
    if spares:
        give_back(tokens, 4, 5, 7)
        shown = [1, *range(9, 13)]
    it.forbid(name.lower())
    request = tokens.request(visits)
    reply = it.ask(request)
    it.forbid()
    assert spares or (reply[:1] == b"-") == (name in ("HGET", "ZRANGE", "INCRBY", "HSET"))
    if reply[:1] == b"-":
        assert (it.counter, it.spares) == (12, spares)
    else:
        shown += [n for one in tokens.numbers(reply, request) for n in one]
        assert it.ask(request).startswith(b"+2 "), "it is kept"
    shown += count(it, other, 2) + count(it, tokens, 2) + count(it, other, 5)
    assert sorted(shown) == [*range(1, it.counter + 1)]


@pytest.mark.parametrize(
    "start", [10**14 - 7, -(10**14) - 7, 2**53 - 3, 2**53 + 1, 2**62 + 1, -(2**53) - 5, -3]
)
def test_numbers_are_exact_to_64_bits(it: Redis, tokens: Tokens, start: int) -> None:
    it.counter = start
    assert count(it, tokens, 1) == [start + 1]
    assert count(it, tokens, 4) == [*range(start + 2, start + 6)]
    again = tokens.request(2)
    assert it.ask(again) in (b":%d" % (start + 7), b"+3 %d 2" % (start + 7))
    assert it.ask(again) == b"+3 %d 2" % (start + 7)


def test_numbers_are_spare_only_as_lua_is_exact(it: Redis, tokens: Tokens, other: Tokens) -> None:
    it.counter = 10**14 - 8
    numbers = count(it, tokens, 6)
    give_back(tokens, *numbers[:3])
    assert count(it, tokens, 0) == []
    assert it.spares == numbers[:3]
    assert count(it, tokens, 4) == [*numbers[:3], 10**14 - 1]
    give_back(tokens, numbers[3])
    assert count(it, tokens, 0) == []
    assert count(it, other, 3) == [numbers[3], 10**14, 10**14 + 1]
    give_back(tokens, numbers[4])
    assert count(it, tokens, 1) == [10**14 + 2]
    assert it.spares == []


def test_each_command_has_its_key_as_some_stores_look_for_it_in_the_text() -> None:
    """They refuse the script where a command's first argument is not written ``KEYS[…]``."""
    sound = re.findall(rb"redis\.p?call\('[A-Z]+', KEYS\[[1-3]\]", SCRIPT)
    assert len(sound) == SCRIPT.count(b"redis.") > 0
