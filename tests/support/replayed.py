"""A check that the search's rules allow what was really sent to Redis and answered.

A trace has each request that counts, when it was sent and on which connection, and its reply. The
check looks for an order in which the store, with the real script, gives each of these replies: each
request is applied after it was sent, and before its reply came. One without a reply may be applied
at any time after, or never. So what happened is one of the orders that `tests/support/orders.py`
searches, as long as Redis keeps its data.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.support.commands import Hash, SortedSet
from tests.support.store import Store, unpacked
from tests.support.traces import Event

#: What Redis has of the counter: each key that a request names, and its value.
State = dict[bytes, bytes | tuple[tuple[bytes, bytes | float], ...]]

#: Orders that are tried, more than there are replies, before the check gives up.
MOST_TRIES = 200_000


class Sent(NamedTuple):
    """A request of a trace."""

    at: int
    line: bytes
    token: tuple[bytes, int, int] | None
    """The key of its process, its sequence number and its visits; None for a plain command."""
    reply: bytes | None = None


def _sent(at: int, line: bytes) -> Sent:
    words = unpacked(line)
    if words[0] not in (b"EVALSHA", b"EVAL"):
        return Sent(at, line, None)
    sequence, visits = words[-1].split()[:2]
    return Sent(at, line, (words[4], int(sequence), int(visits)))


def check(events: Iterable[Event], before: State | None = None, shown: Iterable[int] = ()) -> int:
    """Assert that a trace is one of the orders that the script allows.

    :arg before: what Redis had at first.
    :arg shown: the numbers that visitors saw.
    :return: how many replies were looked at.
    """
    events = list(events)
    requests = _requests(events)
    _no_number_has_two_tokens(events, requests)
    replies = _in_order(events, requests, before or {})
    if shown := list(shown):
        twice = [number for number, times in Counter(shown).items() if times > 1]
        unknown = set(shown) - {n for one in requests.values() for n in _numbers(one)}
        assert (twice, unknown) == ([], set()), "shown twice, and shown without a reply"
    return replies


def _requests(events: list[Event]) -> dict[int, Sent]:
    """Return the requests by their places; one that got an error may have been applied or not."""
    found: dict[int, Sent] = {}
    last: dict[str, int] = {}
    for at, event in enumerate(events):
        if not event.is_reply:
            last[event.connection] = at
            found[at] = _sent(at, event.line)
        elif event.line[:1] in (b":", b"+"):  # else it is an error, or was broken on its way
            sent = last[event.connection]
            found[sent] = found[sent]._replace(reply=event.line)
    return found


def _numbers(request: Sent) -> list[int]:
    """Return the numbers that a reply gave to visits."""
    reply, words = request.reply, unpacked(request.line)
    if reply is None:
        return []
    if reply[:1] == b":":
        plain = {b"INCR": 1, b"INCRBY": int(words[-1]) if words[-1].isdigit() else 0}
        visits = request.token[2] if request.token else plain[words[0]]
        return [*range(int(reply[1:]) - visits + 1, int(reply[1:]) + 1)]
    pairs = [int(word) for word in reply[1:].removesuffix(b" dropped").split()[1:]]
    return [
        number
        for last, count in zip(pairs[::2], pairs[1::2], strict=True)
        for number in range(last - count + 1, last + 1)
    ]


def _no_number_has_two_tokens(events: list[Event], requests: dict[int, Sent]) -> None:
    """Assert that no reply gives a number that another one gave, and that was not given back."""
    held: dict[int, Sent] = {}
    newest: dict[bytes, Sent] = {}  # token of each process
    last: dict[str, int] = {}
    for at, event in enumerate(events):
        if not event.is_reply:
            last[event.connection] = at
            request = requests[at]
            if request.token:
                before = newest.get(request.token[0], request)
                for number in _given_back(request, before):
                    held.pop(number, None)
                assert before.token
                newest[request.token[0]] = max(
                    before, request, key=lambda one: (one.token or ())[1:]
                )
        elif (request := requests[last[event.connection]]).reply is not None:
            token = request.token
            if token and token != newest[token[0]].token:
                continue  # it comes too late, and is not shown
            for number in _numbers(request):
                other = held.setdefault(number, request)
                assert other.token == token, f"{number} has two tokens: {other.line!r} {event!r}"


def _given_back(request: Sent, before: Sent) -> Iterator[int]:
    """Yield the numbers that a token leaves to others.

    :arg before: the process's newest token until then; if its reply is not known, although it
        came, for instance as too few replicas acknowledged it, its numbers were not shown.
    """
    words = [int(word) for word in unpacked(request.line)[-1].split()]
    assert before.token
    if words[3] < before.token[1] < words[0]:
        yield from _numbers(before)
    for last, count in zip(words[5::2], words[6::2], strict=True):
        yield from range(last - count + 1, last + 1)


# The order.


class Answered(NamedTuple):
    """A reply, and what else may have been applied before its request was."""

    at: int
    request: Sent
    beside: tuple[Sent, ...]  # whose replies came later
    lost: int  # requests before it that have no reply


def _in_order(events: list[Event], requests: dict[int, Sent], before: State) -> int:
    """Find an order that gives all replies: a choice that leads nowhere is made anew."""
    answered = list(_answered(events, requests))
    lost = [one for one in requests.values() if one.reply is None]
    choices = [iter([(before, frozenset[int]())])]
    furthest = tries = 0
    while choices:
        if (choice := next(choices[-1], None)) is None:
            choices.pop()
            continue
        if len(choices) > len(answered):
            return len(answered)
        tries += 1
        assert tries < MOST_TRIES + len(answered), "too many orders to look for the right one"
        furthest = max(furthest, len(choices) - 1)
        one = answered[len(choices) - 1]
        choices.append(_ways(*choice, one, lost[: one.lost]))
    at = answered[furthest].at
    lines = [f"{'<-' if one.is_reply else '->'} {one.connection} {_short(one)}" for one in events]
    raise AssertionError("\n".join([*lines[max(0, at - 40) : at + 1], "no order gives this reply"]))


def _answered(events: list[Event], requests: dict[int, Sent]) -> Iterator[Answered]:
    sent: dict[str, int] = {}
    beside: dict[int, Sent] = {}
    lost = 0
    for at, event in enumerate(events):
        if not event.is_reply:
            sent[event.connection] = at
            request = requests.get(at)
            lost += request is not None and request.reply is None
            if request is not None and request.reply is not None:
                beside[at] = request
        elif request := beside.pop(sent[event.connection], None):
            yield Answered(at, request, tuple(beside.values()), lost)


def _ways(
    state: State, done: frozenset[int], one: Answered, lost: list[Sent]
) -> Iterator[tuple[State, frozenset[int]]]:
    """Yield what Redis has once a request was applied, after as few others as may be.

    :arg done: requests that were applied before, and whose replies come later or never.
    """
    request = one.request
    if request.at in done:
        yield state, done - {request.at}
        return
    copies = {other.line: other for other in lost if other.token and _is_newer(other, state)}
    lost = [*copies.values(), *(other for other in lost if not other.token)]
    edge, seen = [(state, done)], {(_hashable(state), done)}
    while edge:
        for now, applied in edge:
            after, reply = _applied(now, request)
            if reply == request.reply:
                yield after, applied
        following = []
        for now, applied in edge:
            for other in (*one.beside, *lost):
                after, reply = _applied(now, other) if other.at not in applied else (now, b"")
                if other.reply != reply if other.reply else after == now:
                    continue
                key = _hashable(after), applied | {other.at}
                if key not in seen:
                    seen.add(key)
                    following.append((after, key[1]))
        edge = following


def _is_newer(request: Sent, state: State) -> bool:
    """Tell whether a token is newer than the one that its process's record knows."""
    assert request.token
    key, sequence, _ = request.token
    known = dict(state.get(key, ())).get(b"token", b"0")  # type: ignore[arg-type]
    return sequence > int(bytes(known).split()[0])  # type: ignore[arg-type]


def _applied(state: State, request: Sent) -> tuple[State, bytes]:
    store, words = Store(), unpacked(request.line)
    keys = words[3:6] if request.token else words[1:2]
    for key in keys:
        value = state.get(key)
        if isinstance(value, bytes):
            store.keys[key] = value
        elif value:
            kind = SortedSet if key.endswith(b":spares") else Hash
            store.keys[key] = kind(value)  # type: ignore[arg-type]
    reply = store.answer(request.line)
    after = {key: value for key, value in state.items() if key not in keys}
    for key, now in store.keys.items():
        after[key] = now if isinstance(now, bytes) else tuple(sorted(now.items()))
    return after, reply


def _hashable(state: State) -> frozenset[tuple[bytes, object]]:
    return frozenset(state.items())


def _short(event: Event) -> str:
    if event.is_reply:
        return event.line.decode("latin-1")
    return " ".join(map(repr, unpacked(event.line)[-3:]))
