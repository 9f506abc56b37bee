"""The tokens that a process makes, and what it reads in their replies.

What they do together, in every order of events, is what `test_orders.py` is for.
"""

import pytest

from counter.connection import Request
from counter.tokens import DIGEST, SCRIPT, SupersededError, Tokens
from tests.support.losing import LosingTokens
from tests.support.store import unpacked


def words(request: Request) -> bytes:
    """Return what a token says to the script, but for whether it renews the record."""
    said = unpacked(request.command + request.arguments)[-1].split()
    return b" ".join(said[:4] + said[5:])


def renews(request: Request) -> bool:
    return unpacked(request.command + request.arguments)[-1].split()[4] == b"1"


def numbers(tokens: Tokens, reply: bytes, request: Request) -> list[int]:
    return [n for one in tokens.numbers(reply, request) for n in one]


@pytest.fixture
def tokens() -> Tokens:
    return LosingTokens("counter")


def test_a_request_names_the_script_and_its_keys(tokens: Tokens) -> None:
    request = tokens.request(2)
    keys = [b"3", b"counter", tokens.key.encode(), b"{counter}:spares"]
    by_digest = unpacked(request.command + request.arguments)
    in_full = unpacked(request.in_full + request.arguments)
    assert by_digest == [b"EVALSHA", DIGEST.encode(), *keys, b"1 2 0 0 1"]
    assert in_full == [b"EVAL", SCRIPT, *keys, b"1 2 0 0 1"]
    assert (request.visits, request.sequence, request.beside, request.wait) == (2, 1, (), b"")
    assert tokens.key == f"{{counter}}:process:{tokens.process_id}"
    assert len(tokens.process_id) == 16
    assert tokens.process_id != Tokens("counter").process_id


def test_the_record_is_renewed_until_a_reply_tells_that_it_was(tokens: Tokens) -> None:
    first, second = tokens.request(0), tokens.request(2)
    numbers(tokens, b":2", second)
    third = tokens.request(0)
    tokens.renew()
    fourth, fifth = tokens.request(0), tokens.request(0)
    tokens.renew()
    numbers(tokens, b":2", fifth)
    sixth = tokens.request(0)
    numbers(tokens, b":2", sixth)
    made = [first, second, third, fourth, fifth, sixth, tokens.request(0)]
    assert [renews(one) for one in made] == [True, True, False, True, True, True, False]


def test_a_reply_is_one_range_or_many(tokens: Tokens) -> None:
    assert numbers(tokens, b":5", tokens.request(5)) == [1, 2, 3, 4, 5]
    assert numbers(tokens, b"+2 9 2 7 1 -3 2", tokens.request(5)) == [8, 9, 7, -4, -3]
    assert numbers(tokens, b"+3 9 0", tokens.request(0)) == []
    assert not tokens.has_dropped
    assert numbers(tokens, b"+4 10 1 dropped", tokens.request(1)) == [10]
    assert numbers(tokens, b":11", tokens.request(1)) == [11]
    assert tokens.has_dropped
    last = 2**63 - 1
    assert numbers(tokens, b":%d" % last, tokens.request(1)) == [last]
    assert numbers(tokens, b"+7 -%d 1" % last, tokens.request(1)) == [-last]


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
    assert words(tokens.request(0)) == b"3 0 2 1"


def test_a_reply_of_a_newer_token_gives_nothing_whatever_was_known_before(tokens: Tokens) -> None:
    old, new = tokens.request(0), tokens.request(0)
    for _ in range(2):
        with pytest.raises(SupersededError):
            tokens.numbers(b"+2 5 0", old)
        assert numbers(tokens, b"+2 5 0", new) == []


def test_a_reply_that_comes_after_a_newer_one_makes_nothing_unknown(tokens: Tokens) -> None:
    """Two probes ask over connections of their own."""
    old, new = tokens.request(0), tokens.request(0)
    for one in new, old:
        assert numbers(tokens, b":0", one) == []
    assert words(tokens.request(0)) == b"3 0 0 2"


def test_no_token_is_made_while_visits_wait_for_one() -> None:
    """It would leave their numbers to the next visits, and they would be shown all the same."""
    tokens = Tokens("counter")
    visit = tokens.request(1)
    with pytest.raises(AssertionError, match="what visits still wait for"):
        tokens.request(0)
    assert numbers(tokens, b":1", visit) == [1]
    tokens.request(1)
    tokens.abandon()
    assert tokens.request(0).sequence == 3


def test_numbers_are_given_back_in_ranges_until_redis_has_them(tokens: Tokens) -> None:
    numbers(tokens, b":9", tokens.request(9))
    for number in (5, 2, 4, 9):
        tokens.give_back(range(number, number + 1))
    assert tokens.shown == 5
    lost = tokens.request(1)
    assert words(lost) == b"2 1 5 1 2 1 5 2 9 1"
    tokens.give_back(range(7, 8))
    again = tokens.request(0)
    assert words(again) == b"3 0 4 1 2 1 5 2 9 1"  # 7 waits until it is known what became of 2
    numbers(tokens, b"+3 9 0", again)
    assert not tokens.settled
    last = tokens.request(0)
    assert words(last) == b"4 0 4 3 7 1"
    numbers(tokens, b"+4 9 0", last)
    assert tokens.settled
    with pytest.raises(AssertionError):
        tokens.give_back(range(1, 6))  # more than were shown
