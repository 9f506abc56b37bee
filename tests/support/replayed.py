"""A check that the search's rules allow what was really sent to Redis and answered.

A trace has each request that counts, when it was sent and on which connection, and its reply. The
check looks for an order in which the store, with the real script, gives each of these replies: each
request is applied after it was sent, and before its reply came. One without a reply may be applied
at any time after, or never. So what happened is one of the orders that `tests/support/orders.py`
searches, as long as Redis keeps its data.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.support.store import State, Store, unpacked
from tests.support.traces import Event
from tests.support.values import newest, span

#: Orders that are tried, more than there are replies, before the check gives up.
MOST_TRIES = 200_000


class Sent(NamedTuple):
    at: int
    line: bytes
    reply: bytes | None = None

    @property
    def token(self) -> tuple[bytes, int, int] | None:
        """The key of its process, its sequence number and its visits; None of a plain command."""
        words = unpacked(self.line)
        if words[0] not in (b"EVALSHA", b"EVAL"):
            return None
        sequence, visits = words[-1].split()[:2]
        return words[4], int(sequence), int(visits)

    def numbers(self) -> set[int]:
        if self.reply is None:
            return set()
        name, *_, last = unpacked(self.line)
        pairs = [int(word) for word in self.reply[1:].removesuffix(b" dropped").split()]
        if self.reply[:1] == b":":
            visits = self.token[2] if self.token else 1 if name == b"INCR" else int(last)
            return {*span(pairs[0], visits)}
        return {n for pair in zip(pairs[1::2], pairs[2::2], strict=True) for n in span(*pair)}


def check(events: Iterable[Event], before: State | None = None, shown: Iterable[int] = ()) -> int:
    """Assert that a trace is one of the orders that the script allows.

    :arg before: what Redis had at first.
    :arg shown: the numbers that visitors saw.
    :return: how many replies were looked at.
    """
    events, shown = list(events), list(shown)
    requests = _requests(events)
    replies = _in_order(events, requests, before or {})
    unknown = set(shown).difference(*(one.numbers() for one in requests.values()))
    assert len(set(shown)) == len(shown), "a number was shown twice"
    assert not unknown, f"{unknown} were shown without a reply"
    return replies


def _requests(events: list[Event]) -> dict[int, Sent]:
    """Return the requests by their places; one that got an error may have been applied or not."""
    found: dict[int, Sent] = {}
    last: dict[str, int] = {}
    for at, event in enumerate(events):
        if not event.is_reply:
            last[event.connection] = at
            found[at] = Sent(at, event.line)
        elif event.line[:1] in (b":", b"+"):  # else it is an error, or was broken on its way
            sent = last[event.connection]
            found[sent] = found[sent]._replace(reply=event.line)
    return found


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
    store = Store()
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
        choices.append(_ways(store, *choice, one, lost[: one.lost]))
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
            if requests[at].reply is None:
                lost += 1
            else:
                beside[at] = requests[at]
        elif request := beside.pop(sent[event.connection], None):
            yield Answered(at, request, tuple(beside.values()), lost)


def _ways(
    store: Store, state: State, done: frozenset[int], one: Answered, lost: list[Sent]
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
            after, reply = store.applied(now, request.line)
            if reply == request.reply:
                yield after, applied
        following = []
        for now, applied in edge:
            for other in (*one.beside, *lost):
                if other.at in applied:
                    continue
                after, reply = store.applied(now, other.line)
                if other.reply != reply if other.reply else after == now:
                    continue
                key = _hashable(after), applied | {other.at}
                if key not in seen:
                    seen.add(key)
                    following.append((after, key[1]))
        edge = following


def _is_newer(request: Sent, state: State) -> bool:
    assert request.token
    return request.token[1] > newest(state.get(request.token[0], ()))  # type: ignore[arg-type]


def _hashable(state: State) -> frozenset[tuple[bytes, object]]:
    return frozenset(state.items())


def _short(event: Event) -> str:
    if event.is_reply:
        return event.line.decode("latin-1")
    return " ".join(map(repr, unpacked(event.line)[-3:]))
