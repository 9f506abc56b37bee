"""What `token.lua` does with a token, in the store that `test_store.py` compares with Valkey."""

import re
from typing import Any

import pytest

from counter.connection import Request
from counter.tokens import SCRIPT, Tokens
from tests.support.commands import Hash, SortedSet
from tests.support.counting import KEPT
from tests.support.losing import LosingTokens
from tests.support.store import Store

SPARES = b"{counter}:spares"

#: All that the script asks of an access list.
COMMANDS = [
    *("HGET", "EXPIRE", "INCRBY", "HSET", "GET"),
    *("ZREMRANGEBYSCORE", "ZRANGEBYSCORE", "ZSCORE", "ZREM", "ZADD", "ZRANGE"),
]


class Redis:
    """The store, in which the script runs."""

    def __init__(self) -> None:
        self.store = Store()

    def answer(self, request: Request) -> bytes:
        return self.store.answer(request.command + request.arguments)

    def run(self, *words: str | int) -> object:
        name, key, *others = (str(word).encode() for word in words)
        if name in (b"SET", b"DEL"):
            self.store.keys.pop(key, None)
            self.store.keys.update(dict.fromkeys([key], others[0]) if others else {})
            return None
        if name == b"TTL":
            return self.store.ttls.get(key, -1)
        return self.store.run(name, key, *others)

    def within(self, calls: int) -> bool:
        """Tell whether the last requests ran so few commands in all; forget them."""
        ran, self.store.ran = len(self.store.ran), []
        return ran <= calls

    @property
    def counter(self) -> int:
        return int(self.run("GET", "counter") or 0)  # type: ignore[call-overload]

    @property
    def spares(self) -> list[int]:
        """The spare numbers, group by group."""
        words: Any = self.run("ZRANGE", SPARES.decode(), 0, -1, "WITHSCORES")
        pairs = zip(words[::2], words[1::2], strict=True)
        return [n for first, last in pairs for n in range(int(first), int(last) + 1)]

    def spare(self, first: int, last: int) -> None:
        self.run("ZADD", SPARES.decode(), last, first)


@pytest.fixture
def it() -> Redis:
    return Redis()


def count(it: Redis, tokens: Tokens, visits: int) -> list[int]:
    """Count visits by a new token; return their numbers."""
    request = tokens.request(visits)
    return [n for one in tokens.numbers(it.answer(request), request) for n in one]


def give_back(tokens: Tokens, *numbers: int) -> None:
    for number in numbers:
        tokens.give_back(range(number, number + 1))


# A token that comes again.


def test_a_token_that_comes_again_gets_what_it_got(it: Redis) -> None:
    tokens = LosingTokens("counter")
    it.run("SET", "counter", 10)
    it.spare(3, 5)
    request = tokens.request(6)
    replies = [it.answer(request) for _ in range(3)]
    assert replies == [b"+1 5 3 13 3"] * 3
    assert it.counter == 13
    assert it.run("TTL", tokens.key) == KEPT


def test_a_token_that_comes_after_a_newer_one_changes_nothing(it: Redis) -> None:
    tokens = LosingTokens("counter")
    old, new = tokens.request(2), tokens.request(3)
    assert it.answer(new) == b":3"
    assert it.answer(old) == b"+2 3 3"
    assert (it.counter, it.spares) == (3, [])


def test_a_token_whose_reply_was_lost_leaves_its_numbers(it: Redis) -> None:
    tokens, other = LosingTokens("counter"), LosingTokens("counter")
    assert count(it, tokens, 2) == [1, 2]
    it.answer(tokens.request(3))
    assert count(it, tokens, 0) == []
    assert it.spares == [3, 4, 5]
    assert count(it, other, 4) == [3, 4, 5, 6]


def test_a_token_that_asked_for_none_and_whose_reply_was_lost_leaves_none(it: Redis) -> None:
    tokens = LosingTokens("counter")
    assert count(it, tokens, 2) == [1, 2]
    it.answer(tokens.request(0))
    assert count(it, tokens, 1) == [3]
    assert it.run("ZRANGE", SPARES.decode(), 0, -1, "WITHSCORES") == []
    assert not tokens.has_dropped


def test_the_record_says_what_was_shown(it: Redis) -> None:
    tokens = LosingTokens("counter")
    count(it, tokens, 3)
    give_back(tokens, 2)
    count(it, tokens, 2)
    assert it.run("HGET", tokens.key, "visits") == b"4"
    assert it.run("HGET", tokens.key, "token") == b"2 2 1 4 1"


def test_a_visit_costs_four_commands_where_nothing_is_spare(it: Redis) -> None:
    tokens, store = LosingTokens("counter"), it.store
    for begins_anew in (True, False, True, False):
        if begins_anew:
            it.run("DEL", tokens.key)
        store.ran.clear()
        count(it, tokens, 1)
        begun = [b"INCRBY", b"HSET", b"EXPIRE"] if begins_anew else []
        assert store.ran == [b"HGET", b"ZRANGE", *begun, b"INCRBY", b"HSET"]
        record = store.keys[tokens.key.encode()]
        assert isinstance(record, Hash)
        assert record.keys() == {b"token", b"visits"}


# Numbers that nobody was shown.


@pytest.mark.parametrize("start", [0, -6, 6])
def test_what_is_given_back_is_the_next_visits(it: Redis, start: int) -> None:
    tokens, other = LosingTokens("counter"), LosingTokens("counter")
    it.run("SET", "counter", start)
    count(it, tokens, 5)
    give_back(tokens, start + 2, start + 4)
    assert count(it, tokens, 0) == []
    assert it.spares == [start + 2, start + 4]
    assert count(it, other, 1) == [start + 2]
    assert count(it, other, 2) == [start + 4, start + 6]
    tokens = LosingTokens("counter")
    for number in range(start + 7, start + 19):  # sequence numbers are compared as numbers
        assert count(it, tokens, 1) == [number]


def test_neighbours_are_one_group(it: Redis) -> None:
    tokens = LosingTokens("counter")
    count(it, tokens, 9)
    for numbers in ((2,), (6,), (3,), (5,), (4,), (8,), (1,)):
        give_back(tokens, *numbers)
        count(it, tokens, 0)
    assert it.spares == [1, 2, 3, 4, 5, 6, 8]
    assert it.run("ZRANGE", SPARES.decode(), 0, -1) == [b"1", b"8"]


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_the_rest_of_a_group_stays_spare(it: Redis, asked: int) -> None:
    it.run("SET", "counter", 9)
    it.spare(4, 6)
    assert count(it, LosingTokens("counter"), asked) == [4, 5, 6][:asked]
    assert it.spares == [4, 5, 6][asked:]


def test_what_a_stale_replica_does_not_know_of_is_not_given_back(it: Redis) -> None:
    tokens = LosingTokens("counter")
    count(it, tokens, 3)
    give_back(tokens, 3)
    it.run("DEL", tokens.key)
    assert count(it, tokens, 1) == [4]
    assert it.spares == []


def test_what_is_spare_is_below_the_counter(it: Redis) -> None:
    it.run("SET", "counter", 5)
    for first, last in ((1, 1), (5, 5), (6, 6), (4, 8)):
        it.spare(first, last)
    assert count(it, LosingTokens("counter"), 3) == [1, 5, 6]
    tokens = LosingTokens("counter")
    count(it, tokens, 2)
    it.run("SET", "counter", 7)
    give_back(tokens, 7, 8)
    assert count(it, tokens, 1) == [8]
    assert it.spares == []


def test_only_what_a_token_got_is_given_back(it: Redis) -> None:
    """Plain commands count in between, and their numbers are nobody's to give back."""
    tokens = LosingTokens("counter")
    assert count(it, tokens, 10) == [*range(1, 11)]
    it.run("INCRBY", "counter", 2)
    assert count(it, tokens, 1) == [13]
    assert it.spares == []


# Many groups.


def test_one_request_takes_from_as_many_groups_as_it_needs(it: Redis) -> None:
    it.run("SET", "counter", 200)
    for first in range(1, 81, 2):
        it.spare(first, first)
    assert count(it, LosingTokens("counter"), 50) == [*range(1, 81, 2), *range(201, 211)]
    assert it.spares == []


@pytest.mark.parametrize("groups", [10_000, 50_000])
def test_however_many_groups_there_are_a_request_takes_a_bounded_time(
    it: Redis, groups: int
) -> None:
    it.run("SET", "counter", 3 * groups)
    it.store.keys[SPARES] = SortedSet({b"%d" % n: float(n) for n in range(1, 2 * groups, 2)})
    tokens = LosingTokens("counter")
    assert it.within(1)
    assert count(it, tokens, 1) == [1]
    assert it.within(16)
    give_back(tokens, 1)
    new = [*range(3 * groups + 1, 3 * groups + 5000 - 128)]
    assert count(it, tokens, 5000) == [*range(1, 259, 2), *new]
    assert it.within(150)


# Keys that are not as the script leaves them.


@pytest.mark.parametrize("odd", ["a hash", "abc", "1.5"])
def test_a_counter_that_is_none_leaves_the_spare_numbers_alone(it: Redis, odd: str) -> None:
    tokens = LosingTokens("counter")
    count(it, tokens, 3)
    it.spare(1, 2)
    it.run("SET", "counter", odd)
    if odd == "a hash":
        it.run("DEL", "counter")
        it.run("HSET", "counter", "1", "2")
    for visits in (0, 2):
        assert it.answer(tokens.request(visits))[:1] == b"-"
    assert it.spares == [1, 2]
    assert it.run("HGET", tokens.key, "token") == b"1 3 3"


@pytest.mark.parametrize("score", ["9", "3.5", "inf"])
@pytest.mark.parametrize("member", ["x", "", "1.5", "10"])
def test_groups_that_cannot_be_read_are_dropped_and_the_others_kept(
    it: Redis, member: str, score: str
) -> None:
    it.run("SET", "counter", 9)
    it.run("ZADD", SPARES.decode(), score, member)
    it.spare(2, 3)
    it.spare(5, 9)
    tokens = LosingTokens("counter")
    assert count(it, tokens, 8) == [2, 3, *range(5, 11)]
    assert it.spares == []
    assert tokens.has_dropped == (score != "inf")


def test_spare_numbers_do_not_expire_and_records_do(it: Redis) -> None:
    tokens = LosingTokens("counter")
    count(it, tokens, 3)
    give_back(tokens, 2)
    count(it, tokens, 0)
    assert it.run("TTL", SPARES.decode()) == it.run("TTL", "counter") == -1
    assert it.run("TTL", tokens.key) == KEPT


def test_the_time_of_a_record_begins_anew_when_the_process_says_so(it: Redis) -> None:
    tokens = LosingTokens("counter")

    def seconds_after(request: Request) -> object:
        it.run("EXPIRE", tokens.key, 10)
        it.answer(request)
        return it.run("TTL", tokens.key)

    count(it, tokens, 1)
    usual = tokens.request(1)
    assert seconds_after(usual) == 10
    assert seconds_after(usual) == KEPT  # as it came again
    tokens.numbers(it.answer(usual), usual)
    tokens.renew()
    assert seconds_after(tokens.request(1)) == KEPT


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("visits", [0, 3])
def test_a_command_that_is_forbidden_while_nothing_is_spare_costs_nobody_a_number(
    it: Redis, name: str, visits: int
) -> None:
    tokens, other = LosingTokens("counter"), LosingTokens("counter")
    assert count(it, tokens, 2) == [1, 2]
    it.store.forbidden = {name.encode()}
    request = tokens.request(visits)
    reply = it.answer(request)
    it.store.forbidden = set()
    last = 2
    assert (reply[:1] == b"-") == (name in ("HGET", "ZRANGE", "INCRBY", "HSET"))
    if reply[:1] == b"-":
        assert (it.counter, it.spares) == (last, [])
    else:
        last += visits
        tokens.numbers(reply, request)
        assert it.answer(request) == b"+2 %d %d" % (last, visits), "it is kept"
    assert count(it, other, 2) + count(it, tokens, 1) == [last + 1, last + 2, last + 3]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_forbidden_for_a_while_costs_nobody_a_number(
    it: Redis, name: str
) -> None:
    """The script is refused before it has changed what numbers rest on."""
    tokens, other = LosingTokens("counter"), LosingTokens("counter")
    shown = [n for n in count(it, tokens, 12) if n not in (4, 5, 7)]
    it.spare(2, 3)
    it.spare(8, 8)
    it.spare(6, 6)
    for one in (2, 3, 6, 8):
        shown.remove(one)
    give_back(tokens, 4, 5, 7)
    it.store.forbidden = {name.encode()}
    request = tokens.request(3)
    reply = it.answer(request)
    it.store.forbidden = set()
    if reply[:1] == b"-":
        assert (it.counter, it.spares) == (12, [2, 3, 6, 8])
    else:
        shown += [n for one in tokens.numbers(reply, request) for n in one]
    shown += count(it, other, 2) + count(it, tokens, 2) + count(it, other, 5)
    assert sorted(shown) == [*range(1, it.counter + 1)]


# Beyond what Lua can count.


@pytest.mark.parametrize(
    "start", [10**14 - 7, -(10**14) - 7, 2**53 - 3, 2**53 + 1, 2**62 + 1, -(2**53) - 5, -3]
)
def test_numbers_are_exact_to_64_bits(it: Redis, start: int) -> None:
    it.run("SET", "counter", start)
    tokens = LosingTokens("counter")
    assert count(it, tokens, 1) == [start + 1]
    assert count(it, tokens, 4) == [*range(start + 2, start + 6)]
    again = tokens.request(2)
    assert it.answer(again) in (b":%d" % (start + 7), b"+3 %d 2" % (start + 7))
    assert it.answer(again) == b"+3 %d 2" % (start + 7)


def test_numbers_can_be_given_back_while_the_counter_is_below_a_hundred_million_million(
    it: Redis,
) -> None:
    it.run("SET", "counter", 10**14 - 8)
    tokens = LosingTokens("counter")
    numbers = count(it, tokens, 6)
    give_back(tokens, *numbers[:3])
    assert count(it, tokens, 0) == []
    assert it.spares == numbers[:3]
    assert count(it, tokens, 4) == [*numbers[:3], 10**14 - 1]
    give_back(tokens, numbers[3])
    assert count(it, tokens, 0) == []
    assert it.spares == [numbers[3]]
    assert count(it, LosingTokens("counter"), 3) == [numbers[3], 10**14, 10**14 + 1]
    give_back(tokens, numbers[4])
    assert count(it, tokens, 1) == [10**14 + 2]
    assert it.spares == []


def test_a_counter_at_its_end_takes_no_spare_number_along(it: Redis) -> None:
    it.run("SET", "counter", 2**63 - 2)
    it.spare(5, 9)
    assert it.answer(LosingTokens("counter").request(9)).startswith(b"-")
    assert it.spares == [5, 6, 7, 8, 9]


def test_each_command_has_its_key_as_some_stores_look_for_it_in_the_text() -> None:
    """They refuse the script where a command's first argument is not written ``KEYS[…]``."""
    sound = re.findall(rb"redis\.p?call\('[A-Z]+', KEYS\[[1-3]\]", SCRIPT)
    assert len(sound) == SCRIPT.count(b"redis.") > 0
