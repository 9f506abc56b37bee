"""The tokens that a process makes, what `token.lua` does with them, and what is read in replies.

What they do together, in every order of events, is what `test_orders.py` is for.
"""

import re
from typing import Any

import pytest

from counter.connection import Request
from counter.tokens import SCRIPT, SupersededError, Tokens
from tests.support.counting import KEPT, permit
from tests.support.store import LosingTokens, Store, unpacked

SPARES = "{counter}:spares"

#: Lets a counter be near the end of what Redis can count.
END = f"SET counter {2**63 - 2}"

#: All that the script asks of an access list.
COMMANDS = sorted({*re.findall(r"redis\.p?call\('([A-Z]+)'", SCRIPT.decode())})


class Redis(Store):
    def ask(self, request: Request) -> bytes:
        return self.answer(request.command + request.arguments)

    @property
    def counter(self) -> int:
        return int(self.client.get("counter") or 0)

    @counter.setter
    def counter(self, value: int) -> None:
        self.client.set("counter", value)

    @property
    def spares(self) -> list[int]:
        groups: Any = self.client.zrange(SPARES, 0, -1, withscores=True)
        return [n for first, last in groups for n in range(int(first), int(last) + 1)]

    def spare(self, first: int, last: int) -> None:
        self.client.zadd(SPARES, {str(first): last})

    def ran(self) -> dict[str, int]:
        """Return how often each of the script's commands ran since this was asked last."""
        stats = self.client.info("commandstats")
        self.client.config_resetstat()
        calls = {name.removeprefix("cmdstat_").upper(): one["calls"] for name, one in stats.items()}
        return {name: calls[name] for name in COMMANDS if name in calls}


@pytest.fixture
def it() -> Redis:
    return Redis()


@pytest.fixture
def tokens() -> Tokens:
    return LosingTokens("counter")


other = tokens


def numbers(tokens: Tokens, reply: bytes, request: Request) -> list[int]:
    return [n for one in tokens.numbers(reply, request) for n in one]


def count(it: Redis, tokens: Tokens, visits: int) -> list[int]:
    request = tokens.request(visits)
    return numbers(tokens, it.ask(request), request)


def give_back(tokens: Tokens, *numbers: int) -> None:
    for number in numbers:
        tokens.give_back(range(number, number + 1))


def words(request: Request) -> str:
    """Return what a token says to the script."""
    return unpacked(request.command + request.arguments)[-1].decode()


# What the script does.


def test_a_visit_costs_four_commands_where_nothing_is_spare(it: Redis, tokens: Tokens) -> None:
    for number, begins_anew in enumerate((True, False, True, False), 1):
        if begins_anew:
            it.client.delete(tokens.key)
        it.ran()
        assert count(it, tokens, 1) == [number]
        begun = {"EXPIRE": 1, "INCRBY": 2, "HSET": 2} if begins_anew else {"INCRBY": 1, "HSET": 1}
        assert it.ran() == {"HGET": 1, "ZRANGE": 1} | begun
        assert {*it.client.hgetall(tokens.key)} == {b"token", b"visits"}


@pytest.mark.parametrize("start", [0, -6, 6])
def test_what_is_given_back_is_next(it: Redis, tokens: Tokens, other: Tokens, start: int) -> None:
    it.counter = start
    count(it, tokens, 5)
    give_back(tokens, start + 2, start + 4)
    assert count(it, tokens, 0) == []
    assert it.client.hget(tokens.key, "visits") == b"3"
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
    assert it.client.zrange(SPARES, 0, -1, withscores=True) == [(b"1", 6), (b"8", 8)]
    assert it.client.ttl(SPARES) == -1, "they do not expire"
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
    it.client.delete(tokens.key)  # a stale replica does not know of that token
    assert count(it, tokens, 1) == [12]
    assert it.spares == []


def test_however_many_groups_the_time_is_bounded(it: Redis, tokens: Tokens) -> None:
    groups = 50_000
    it.counter = 3 * groups
    it.client.zadd(SPARES, {str(n): n for n in range(1, 2 * groups, 2)})
    it.ran()
    assert count(it, tokens, 1) == [1]
    assert sum(it.ran().values()) <= 16
    give_back(tokens, 1)
    new = range(3 * groups + 1, 3 * groups + 5000 - 128)
    it.ran()
    assert count(it, tokens, 5000) == [*range(1, 259, 2), *new]
    assert sum(it.ran().values()) <= 150


@pytest.mark.parametrize("odd", ["HSET counter 1 2", "SET counter 1.5", END])
def test_without_a_counter_spare_numbers_stay(it: Redis, tokens: Tokens, odd: str) -> None:
    count(it, tokens, 3)
    it.spare(1, 2)
    it.client.delete("counter")
    it.client.execute_command(*odd.split())
    assert it.ask(tokens.request(9))[:1] == b"-"
    assert it.spares == [1, 2]
    assert it.client.hget(tokens.key, "token") == b"1 3 3"


@pytest.mark.parametrize("score", [9, 3.5, float("inf")])
@pytest.mark.parametrize("member", ["x", "", "1.5", "10"])
def test_odd_groups_are_dropped(it: Redis, tokens: Tokens, member: str, score: float) -> None:
    it.counter = 9
    it.client.zadd(SPARES, {member: score})
    it.spare(2, 3)
    it.spare(5, 9)
    assert count(it, tokens, 8) == [2, 3, *range(5, 11)]
    assert it.spares == []
    assert tokens.has_dropped == (score != float("inf"))


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
    permit(it.client, f"-{name.lower()}")
    request = tokens.request(visits)
    reply = it.ask(request)
    permit(it.client, "+@all")
    assert spares or (reply[:1] == b"-") == (name in ("HGET", "ZRANGE", "INCRBY", "HSET"))
    if reply[:1] == b"-":
        assert (it.counter, it.spares) == (12, spares)
    else:
        shown += numbers(tokens, reply, request)
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
    shown = count(it, tokens, 6)
    give_back(tokens, *shown[:3])
    assert count(it, tokens, 0) == []
    assert it.spares == shown[:3]
    assert count(it, tokens, 4) == [*shown[:3], 10**14 - 1]
    give_back(tokens, shown[3])
    assert count(it, tokens, 0) == []
    assert count(it, other, 3) == [shown[3], 10**14, 10**14 + 1]
    give_back(tokens, shown[4])
    assert count(it, tokens, 1) == [10**14 + 2]
    assert it.spares == []


def test_each_command_has_its_key_as_some_stores_look_for_it_in_the_text() -> None:
    """They refuse the script where a command's first argument is not written ``KEYS[…]``."""
    sound = re.findall(rb"redis\.p?call\('[A-Z]+', KEYS\[[1-3]\]", SCRIPT)
    assert len(sound) == SCRIPT.count(b"redis.") > 0


# What a process makes and reads.


def test_a_record_is_kept_from_when_it_is_asked_until_a_reply_tells_that_it_is(
    it: Redis, tokens: Tokens
) -> None:
    def renews(request: Request) -> bool:
        it.client.expire(tokens.key, 10)
        it.ask(request)
        return it.client.ttl(tokens.key) == KEPT

    first, second = tokens.request(0), tokens.request(2)
    assert [renews(first), renews(second), renews(second)] == [True] * 3
    numbers(tokens, b":2", second)
    third = tokens.request(0)
    assert [renews(third), renews(third)] == [False, True], "as it came again"
    tokens.renew()
    fourth, fifth = tokens.request(0), tokens.request(0)
    tokens.renew()
    numbers(tokens, b":2", fifth)
    sixth = tokens.request(0)
    numbers(tokens, b":2", sixth)
    made = [fourth, fifth, sixth, tokens.request(0)]
    assert [renews(one) for one in made] == [True, True, True, False]


@pytest.mark.parametrize(
    "reply",
    [
        *(b"", b"+OK", b":x", b"$1", b"+2", b"+2 5", b"+2 5 ", b"+2 5 3 1", b"+2 x 3", b"+-2 5 3"),
        *(b"+1 5 3", b"+3 5 3", b"+2 5 2", b"+2 5 4", b"+2 5 3 7 1", b"+2 5 3 lost", b"+2 5 -3"),
        *(b":9223372036854775808", b"+2 9223372036854775808 3", b"+2 5 3\n", b"x2 5 3"),
    ],
)
def test_a_reply_that_is_none_to_the_request_is_an_error(tokens: Tokens, reply: bytes) -> None:
    numbers(tokens, b":2", tokens.request(2))
    request = tokens.request(3)
    with pytest.raises(ValueError, match="Redis answered with"):
        tokens.numbers(reply, request)
    assert tokens.shown == 2
    assert not tokens.settled
    assert words(tokens.request(0)) == "3 0 2 1 0"


def test_a_reply_of_a_newer_token_gives_nothing_whatever_was_known_before(tokens: Tokens) -> None:
    old, new = tokens.request(0), tokens.request(0)
    for _ in range(2):
        with pytest.raises(SupersededError):
            tokens.numbers(b"+2 5 0", old)
        assert numbers(tokens, b"+2 5 0", new) == []
    # Two probes ask over connections of their own: the older reply may come last.
    old, new = tokens.request(0), tokens.request(0)
    assert numbers(tokens, b":0", new) == numbers(tokens, b":0", old) == []
    assert words(tokens.request(0)) == "5 0 0 4 0"


def test_numbers_are_given_back_in_ranges_until_redis_has_them(tokens: Tokens) -> None:
    numbers(tokens, b":20", tokens.request(20))
    give_back(tokens, 5, 2, 4, *range(9, 21))
    assert tokens.shown == 5
    assert words(tokens.request(1)) == "2 1 5 1 0 2 1 5 2 20 12"
    give_back(tokens, 7)
    again = tokens.request(0)
    assert words(again) == "3 0 4 1 0 2 1 5 2 20 12"  # 7 waits until it is known what became of 2
    numbers(tokens, b"+3 20 0", again)
    assert not tokens.settled
    last = tokens.request(0)
    assert words(last) == "4 0 4 3 0 7 1"
    numbers(tokens, b"+4 20 0", last)
    assert tokens.settled
    with pytest.raises(AssertionError):
        tokens.give_back(range(1, 6))  # more than were shown
