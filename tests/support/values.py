"""The real code that makes tokens, applies them and reads replies, on values.

`counter.delivery.Delivery` and `counter.tokens.Tokens` make requests and read replies, and
`counter/token.lua` is run in the store. Each is given as a value and returned as another one, so
that it runs once for each value.
"""

import functools
import itertools
import pickle
from operator import attrgetter
from typing import Any

from redis.exceptions import RedisError, ResponseError

from counter.connection import Request
from counter.delivery import Delivery
from counter.tokens import spares_key
from tests.support.store import State, Store

COUNTER, SPARES, RECORD = b"counter", spares_key("counter").encode(), b"{counter}:process:P"

_store = functools.cache(Store)

#: A `Delivery` as a value.
Agent = bytes

#: What all processes share in Redis, the counter and the spare numbers; and a process's record.
Shared = tuple[bytes | None, tuple[tuple[bytes, bytes], ...]]
Record = tuple[tuple[bytes, bytes], ...]


def thawed(agent: Agent) -> Delivery:
    it: Delivery = pickle.loads(agent)
    vars(it.tokens)["process_id"] = "P"  # of each process, as each finds its own record under it
    return it


def frozen(it: Delivery) -> Agent:
    if it._refused_at > 0:  # 5 s pass when the search says so
        it._refused_at = float("inf")
    for name in ("process_id", "key", "_commands"):  # these are constant
        vars(it.tokens).pop(name, None)
    return pickle.dumps(it)


@functools.cache
def calls(agent: Agent, name: str, *arguments: Any) -> tuple[Agent, Any]:
    """Call a method; return the process's code as it is then, and the result."""
    it = thawed(agent)
    result = attrgetter(name)(it)(*arguments)
    return frozen(it), result


@functools.cache
def reads(agent: Agent, reply: bytes, request: Request) -> tuple[Agent, tuple[int, ...], str]:
    """Read a reply: return the code then, the numbers, and why there are none."""
    it = thawed(agent)
    try:
        if reply[:1] == b"-":
            raise ResponseError(reply[1:].decode())
        numbers = it.numbers([reply, b":1"] if it._wait else [reply], request)
    except RedisError as error:
        why = "is refused" if it.refused(error, request) else "fails"
        return frozen(it), (), why
    assert not it.tokens.has_dropped, "the script cannot read what it wrote"
    return frozen(it), tuple(itertools.chain.from_iterable(numbers)), ""


@functools.cache
def is_settled(agent: Agent) -> bool:
    return thawed(agent).settled


@functools.cache
def applied(shared: Shared, record: Record, request: Request) -> tuple[Shared, Record, bytes]:
    counter, spares = shared
    state: State = {COUNTER: counter or b"", SPARES: spares, RECORD: record}
    after, reply = _store().applied(
        {key: value for key, value in state.items() if value}, request.command + request.arguments
    )
    found: Any = [after.get(key) for key in (COUNTER, SPARES, RECORD)]
    return (found[0], found[1] or ()), found[2] or (), reply


def newest(record: Record) -> int:
    return int(dict(record).get(b"token", b"0").split()[0])


def held_by(agent: Agent, record: Record) -> set[int]:
    """Return the numbers that go with a process that is killed, but for those to be shown."""
    tokens = thawed(agent).tokens
    held = set[int]().union(*tokens._unshown, *tokens._given_back)
    if newest(record) > tokens._known:
        words = [int(word) for word in dict(record)[b"token"].split()[1:]]
        held.update(*map(span, words[::2], words[1::2]))
    return held


def span(last: int, count: int) -> range:
    """Return so many numbers, of which this is the last."""
    return range(last - count + 1, last + 1)
