"""One process of `tests/support/orders.py`: what it may do, and what it makes of replies.

Its tokens and replies are made and read by the real `counter.delivery.Delivery` and
`counter.tokens.Tokens`, and applied by the real `counter/token.lua`. All values are hashable, and
each step makes a new one, so what a step does is computed once.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from redis.exceptions import RedisError, ResponseError

from counter.connection import Request
from counter.delivery import Delivery
from counter.tokens import process_key, spares_key
from tests.support.store import Hash, SortedSet, Store

COUNTER, SPARES, RECORD = b"counter", spares_key("counter").encode(), b"{counter}:process:P"

#: A `Delivery` as a value: its attributes and those of its tokens.
Agent = tuple[tuple[str, Any], ...]

#: What all processes share in Redis: the counter, and the groups of spare numbers.
Shared = tuple[bytes | None, tuple[tuple[bytes, float], ...]]

#: A process's record in Redis.
Record = tuple[tuple[bytes, bytes], ...]


class Process(NamedTuple):
    """A process, what is under way, its record, and what may still happen to it."""

    agent: Agent
    phase: str  # on, off, ending, ended, killed
    batches: int
    deadlines: int
    goers: int
    looks: int
    kills: int
    cuts: int = 0
    request: Request | None = None  # under way, of the link or of the end
    reply: bytes = b""  # that is on its way, where the search does not take both as one
    probes: tuple[Request, ...] = ()
    copies: tuple[Request, ...] = ()  # that may arrive, whoever still listens
    held: tuple[int, ...] = ()  # numbers whose visitors will go
    record: Record = ()
    replica: Record = ()  # what the replica of Redis has of the record


class Step(NamedTuple):
    """What may happen: as a line to read, the process then, what is shared then, and numbers."""

    text: str
    process: Process
    shown: tuple[int, ...] = ()
    shared: Shared | None = None  # as before
    lost: tuple[int, ...] = ()  # by plain commands
    is_copied: bool = False  # to the replica


# The real code, on values.

_CONSTANT = {"_counter", "_wait", "tokens", "process_id", "_commands"}


def delivery(wait: int, agent: Agent = ()) -> Delivery:
    made = Delivery("counter", wait)
    vars(made.tokens)["process_id"] = "P"  # of each: its record is put in its place
    assert made.tokens.key == process_key("P") == RECORD.decode()
    vars(made.tokens)["_commands"] = _commands()
    for name, value in agent:
        owner = made.tokens if name.startswith("tokens.") else made
        vars(owner)[name.removeprefix("tokens.")] = list(value) if type(value) is tuple else value
    return made


@functools.cache
def _commands() -> tuple[bytes, bytes]:
    one = Delivery("counter").tokens
    vars(one)["process_id"] = "P"
    return one._commands


def frozen(it: Delivery) -> Agent:
    if it._refused_at:  # 5 s pass when the search says so
        it._refused_at = float("inf")
    named = [*vars(it).items(), *((f"tokens.{name}", one) for name, one in vars(it.tokens).items())]
    return tuple(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in named
        if name.removeprefix("tokens.") not in _CONSTANT
    )


@functools.cache
def asks(agent: Agent, visits: int, wait: int, with_token: bool) -> tuple[Agent, Request]:
    """Return what a process makes to ask for numbers."""
    it = delivery(wait, agent)
    request = it.tokens.request(visits) if with_token else it.request(visits)
    return frozen(it), request


@functools.cache
def reads(
    agent: Agent, reply: bytes, request: Request, wait: int
) -> tuple[Agent, tuple[int, ...], str]:
    """Return the numbers that a process reads, and why there are none: refused, or failed."""
    it = delivery(wait, agent)
    try:
        if reply[:1] == b"-":
            raise ResponseError(reply[1:].decode())
        numbers = it.numbers([reply, b":1"] if wait else [reply], request)
    except RedisError as error:
        why = "refused" if it.refused(error, request) else "failed"
        return frozen(it), (), why
    return frozen(it), tuple(itertools.chain.from_iterable(numbers)), ""


@functools.cache
def gives_back(agent: Agent, number: int) -> Agent:
    it = delivery(0, agent)
    it.tokens.give_back(range(number, number + 1))
    return frozen(it)


@functools.cache
def abandons(agent: Agent) -> Agent:
    """Return a process whose visits wait for no token any more."""
    it = delivery(0, agent)
    it.tokens.abandon()
    return frozen(it)


@functools.cache
def is_settled(agent: Agent) -> bool:
    return delivery(0, agent).settled


@functools.cache
def applied(shared: Shared, record: Record, request: Request) -> tuple[Shared, Record, bytes]:
    """Return what Redis has after a request, and its reply."""
    store = Store()
    counter, spares = shared
    if counter is not None:
        store.keys[COUNTER] = counter
    if spares:
        store.keys[SPARES] = SortedSet(spares)
    if record:
        store.keys[RECORD] = Hash(record)
    reply = store.answer(request.command + request.arguments)
    after = store.keys
    assert after.keys() <= {COUNTER, SPARES, RECORD}
    assert store.ttls.keys() == ({RECORD} if request.sequence else set())
    now = after.get(COUNTER), tuple(after.get(SPARES, SortedSet()).in_order())
    return now, tuple(sorted(after.get(RECORD, {}).items())), reply


def newest(record: Record) -> int:
    """Return the sequence number of the newest token that a record knows."""
    return int(dict(record).get(b"token", b"0").split()[0])


def got(record: Record) -> set[int]:
    """Return the numbers of the newest token that a record knows."""
    words = [int(word) for word in dict(record).get(b"token", b"0").split()[1:]]
    pairs = zip(words[::2], words[1::2], strict=True)
    return {n for last, count in pairs for n in range(last - count + 1, last + 1)}


def could_hold(process: Process) -> set[int]:
    """Return the numbers that go with a process that is killed."""
    tokens = delivery(0, process.agent).tokens
    ranges = (*tokens._unshown, *tokens._given_back)
    held = set(process.held).union(*ranges)
    return held | got(process.record) if newest(process.record) > tokens._known else held


# What a process may do.


class Life:
    """What may happen to a process.

    :arg sizes: how many visits a batch may have.
    :arg wait: replicas that must acknowledge.
    :arg beside: probes that may be under way at once.
    :arg ends: whether it may be told to stop.
    :arg fails_over: whether a replica may take over.
    :arg in_two: whether a request's arrival and its reply's are two events.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        wait: int,
        beside: int,
        ends: bool,
        fails_over: bool,
        in_two: bool,
    ) -> None:
        self.sizes, self.wait, self.beside, self.ends = sizes, wait, beside, ends
        self.fails_over, self.in_two = fails_over, in_two

    # By itself. These change nothing in Redis.

    def alone(self, it: Process) -> Iterator[Step]:
        """Yield what the process may do, or its visitors, or the clock."""
        if it.phase in ("ended", "killed"):
            return
        if it.reply:
            yield from (step._replace(text=f"hears of {step.text}") for step in self._heard(it))
        lost = _plain_numbers(it.request, it.reply)
        yield from (step._replace(lost=lost) for step in self._unheard(it))

    def _unheard(self, it: Process) -> Iterator[Step]:
        if it.kills:
            yield Step("is killed", _dead(it))
        for number in it.held:
            rest = tuple(one for one in it.held if one != number)
            back = it._replace(agent=gives_back(it.agent, number), held=rest)
            yield Step(f"is left by the visitor who had {number}", back)
        if dict(it.agent)["_refused_at"] == float("inf"):
            waited = tuple((k, -1.0 if k == "_refused_at" else v) for k, v in it.agent)
            yield Step("has used plain commands for 5 s", it._replace(agent=waited))
        if it.reply and it.cuts and it.request and it.request.sequence:
            yield Step("is cut off and sends again", it._replace(reply=b"", cuts=it.cuts - 1))
        if it.phase == "ending":
            if it.looks:
                yield Step("is cut off", self._hands_on(it._replace(looks=it.looks - 1)))
            return
        yield from self._off(it) if it.phase == "off" else self._on(it)
        if self.ends:
            yield Step("is told to stop", self._stops(it))

    def _on(self, it: Process) -> Iterator[Step]:
        if it.request is not None:
            if it.deadlines:
                yield Step("has waited too long", _off(it._replace(deadlines=it.deadlines - 1)))
            return
        for size in self.sizes if it.batches else ():
            step = self._asks(it._replace(batches=it.batches - 1), size)
            yield Step(f"sends {_name(step.request)}", step)
        if dict(it.agent)["exactly_once"] and not is_settled(it.agent):
            step = self._asks(it, 0)
            yield Step(f"settles by {_name(step.request)}", step)

    def _off(self, it: Process) -> Iterator[Step]:
        if it.looks:
            yield self._looks(it)

    def _looks(self, it: Process) -> Step:
        agent, probe = asks(it.agent, 0, self.wait, False)
        probes = (*it.probes, probe)[-self.beside :]
        step = it._replace(agent=agent, probes=probes, looks=it.looks - 1)
        return Step(f"probes by {_name(probe)}", _with_copy(step, probe))

    def _asks(self, it: Process, visits: int, with_token: bool = False) -> Process:
        agent, request = asks(it.agent, visits, self.wait, with_token)
        return _with_copy(it._replace(agent=agent, request=request, reply=b""), request)

    def _stops(self, it: Process) -> Process:
        for number in it.held:
            it = it._replace(agent=gives_back(it.agent, number))
        it = _off(it)._replace(phase="ending", held=(), batches=0)
        return self._hands_on(it)

    def _hands_on(self, it: Process) -> Process:
        if is_settled(it.agent):
            return _dead(it, "ended")
        return self._asks(it, 0, with_token=True)

    # With Redis.

    def with_redis(self, it: Process, shared: Shared, has_scripts: bool) -> Iterator[Step]:
        """Yield which of its packets may arrive, and what comes of it."""
        if it.request is not None and not it.reply:
            step, reply = self._arrives(it, shared, it.request, has_scripts)
            if self.in_two:
                yield step._replace(process=step.process._replace(reply=reply))
            else:
                yield from _after(step, self._heard(step.process._replace(reply=reply)))
        for probe in it.probes:
            step, reply = self._arrives(it, shared, probe, has_scripts)
            yield from _after(step, self._heard_by(step.process, probe, reply))
        for copy in it.copies:
            if copy.sequence and not has_scripts:
                continue
            step, reply = self._arrives(it, shared, copy, has_scripts)
            text = f"'s copy of {_name(copy)} arrives, and no reply is heard"
            if copy.sequence == 0:
                yield from self._is_lost(it, step._replace(text=text), copy, reply)
            elif (step.shared, step.process.record) != (shared, it.record):
                yield step._replace(text=text, is_copied=False)

    def _arrives(
        self, it: Process, shared: Shared, request: Request, has_scripts: bool
    ) -> tuple[Step, bytes]:
        text = f"'s {_name(request)} arrives and is answered"
        if request.sequence and not has_scripts:
            return Step(f"'s {_name(request)} is refused", it, shared=shared), b"-NOPERM scripts"
        now, record, reply = applied(shared, it.record, request)
        assert newest(record) >= newest(it.record), "a sequence only grows"
        copies = tuple(
            one
            for one in it.copies
            if (one.sequence == 0 and one is not request) or self._matters(one, now, record, it)
        )
        step = it._replace(record=record, copies=copies)
        return Step(text, step, shared=now, is_copied=bool(self.wait)), reply

    def _matters(self, copy: Request, shared: Shared, record: Record, it: Process) -> bool:
        """Tell whether another copy of a token may ever change anything."""
        if copy.sequence == 0:
            return False
        if copy.sequence > newest(it.replica if self.fails_over else record):
            return True
        return applied(shared, record, copy)[:2] != (shared, record)

    def _is_lost(self, it: Process, step: Step, copy: Request, reply: bytes) -> Iterator[Step]:
        """A plain command counts, and its reply is for nobody: its connection is cut."""
        lost = _plain_numbers(copy, reply)
        if copy is not it.request:
            yield step._replace(lost=lost)
        elif it.deadlines:
            off = _off(step.process._replace(deadlines=it.deadlines - 1))
            yield step._replace(lost=lost, process=off)

    def _heard(self, it: Process) -> Iterator[Step]:
        """What comes of the reply to the request under way."""
        request, reply = it.request, it.reply
        assert request is not None
        agent, numbers, why = reads(it.agent, reply, request, self.wait)
        it = it._replace(agent=agent, request=None, reply=b"")
        if it.phase == "ending":
            after = _dead(it) if why else self._hands_on(it)
            yield Step(f"the reply to {_name(request)}", after)
        elif why:
            after = self._asks(it, request.visits) if why == "refused" else _off(it)
            yield Step(f"{_name(request)} that it {why}", after)
        else:
            for gone in _some_of(numbers, it.goers):
                shown = tuple(one for one in numbers if one not in gone)
                after = it._replace(goers=it.goers - len(gone))
                if request.sequence:
                    after = after._replace(held=tuple(sorted((*it.held, *gone))))
                text = f"{_name(request)}; it shows {list(shown)}" + f", not {list(gone)}" * bool(
                    gone
                )
                yield Step(text, after, shown, lost=() if request.sequence else gone)

    def _heard_by(self, it: Process, probe: Request, reply: bytes) -> Iterator[Step]:
        agent, _, why = reads(it.agent, reply, probe, self.wait)
        rest = tuple(one for one in it.probes if one is not probe)
        it = it._replace(agent=agent, probes=rest)
        if why == "refused":
            agent, plain = asks(it.agent, 0, self.wait, False)
            yield Step("it probes plainly", it._replace(agent=agent, probes=(*rest, plain)))
        elif why:
            yield Step("the probe fails", it)
        else:
            yield Step("it is on", it._replace(phase="on", probes=()))


def _plain_numbers(request: Request | None, reply: bytes) -> tuple[int, ...]:
    """Return the numbers that a plain command got."""
    if request is None or request.sequence or not reply:
        return ()
    last = int(reply[1:])
    return tuple(range(last - request.visits + 1, last + 1))


def _after(step: Step, steps: Iterable[Step]) -> Iterator[Step]:
    for one in steps:
        text = f"{step.text}: {one.text}"
        yield one._replace(text=text, shared=step.shared, is_copied=step.is_copied)


def _off(it: Process) -> Process:
    agent = abandons(it.agent)
    return it._replace(agent=agent, phase="off", request=None, reply=b"", probes=())


def _dead(it: Process, phase: str = "killed") -> Process:
    return it._replace(
        phase=phase, request=None, reply=b"", probes=(), batches=0, deadlines=0, goers=0, looks=0,
        kills=0, cuts=0,
    )  # fmt: skip


def _with_copy(it: Process, request: Request) -> Process:
    return it._replace(copies=(*it.copies, request))


def _some_of(numbers: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    for count in range(min(most, len(numbers)) + 1):
        yield from itertools.combinations(numbers, count)


def _name(request: Request | None) -> str:
    assert request is not None
    kind = f"token {request.sequence}" if request.sequence else "INCRBY"
    return f"{kind} for {request.visits}"
