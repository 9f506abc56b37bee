"""One process of `tests/support/orders.py`: what may happen to it, and what it makes of replies."""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from counter.connection import Request
from tests.support.values import (
    Agent,
    Record,
    Shared,
    applied,
    calls,
    frozen,
    is_settled,
    newest,
    reads,
    span,
    thawed,
)

#: Nothing more happens to a process that ended well, or that held numbers when it ended.
ENDS = ("ended", "killed")


class Bounds(NamedTuple):
    """How much may happen: to each process, and to Redis in all."""

    processes: int = 1
    batches: int = 2
    sizes: tuple[int, ...] = (1, 2)
    deadlines: int = 0
    goers: int = 0  # visitors who go, each before its number comes or after
    looks: int = 0  # probes, and connections that are cut while the process ends
    beside: int = 1  # probes that are under way at once
    starts: bool = False  # it looks for Redis first
    kills: int = 0
    cuts: int = 0  # only with in_two, else there is no end to them
    in_two: bool = False  # whether a request's arrival and its reply's are two events
    wait: int = 0
    failovers: int = 0
    refusals: int = 0  # of scripts; they are allowed again

    def __str__(self) -> str:
        named = zip(self._fields, self, Bounds(), strict=True)
        return ", ".join(f"{name}={value}" for name, value, usual in named if value != usual)


class Process(NamedTuple):
    """A process, what is under way, its record, and what may still happen to it."""

    agent: Agent
    phase: str  # on, off, ending, ended, killed
    batches: int = 0
    deadlines: int = 0
    goers: int = 0
    looks: int = 0
    kills: int = 0
    cuts: int = 0
    request: Request | None = None  # under way, of the link or of the end
    reply: bytes = b""  # that is on its way, with in_two
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
    lost: tuple[int, ...] = ()  # by plain commands
    shared: Shared | None = None  # as before
    is_copied: bool = False  # to the replica


class Life:
    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds

    # By itself. These change nothing in Redis.

    def alone(self, it: Process) -> Iterator[Step]:
        """Yield what the process may do, or its visitors, or the clock."""
        if it.phase in ENDS:
            return
        if it.reply:
            yield from self._heard(it, " hears of ")
        lost = _plain_numbers(it.request, it.reply)
        yield from (step._replace(lost=lost) for step in self._unheard(it))

    def _unheard(self, it: Process) -> Iterator[Step]:
        own, request = thawed(it.agent), it.request
        if it.kills:
            yield Step(" is killed", _dead(it, "killed"))
        for number in it.held:
            yield Step(f" is left by the visitor who had {number}", self._gives_back(it, number))
        if own._refused_at > 0:
            own._refused_at = float("-inf")
            yield Step(" has used plain commands for 5 s", it._replace(agent=frozen(own)))
        if it.reply and it.cuts and request and request.sequence:
            yield Step(" is cut off and sends again", it._replace(reply=b"", cuts=it.cuts - 1))
        if it.looks and it.phase == "ending":
            yield Step(" is cut off", self._hands_on(it._replace(looks=it.looks - 1)))
        elif it.looks and it.phase != "on":
            yield self._looks(it)
        if it.phase == "ending":
            return
        yield Step(" is told to stop", self._stops(it))
        if request and it.deadlines:
            yield Step(" has waited too long", _off(it._replace(deadlines=it.deadlines - 1)))
        elif not request and it.phase != "off":
            for size in self.bounds.sizes if it.batches else ():
                asking = self._asks(it._replace(batches=it.batches - 1), size)
                yield Step(f" sends {_name(asking.request)}", asking)
            if own.exactly_once and not is_settled(it.agent):
                asking = self._asks(it, 0)
                yield Step(f" settles by {_name(asking.request)}", asking)

    def _looks(self, it: Process) -> Step:
        agent, probe = calls(it.agent, "request", 0)
        probes = (*it.probes, probe)[-self.bounds.beside if it.phase == "off" else -1 :]
        copies = (*it.copies, probe)
        looking = it._replace(agent=agent, probes=probes, copies=copies, looks=it.looks - 1)
        return Step(f" probes by {_name(probe)}", looking)

    def _asks(self, it: Process, visits: int, method: str = "request") -> Process:
        agent, request = calls(it.agent, method, visits)
        return it._replace(agent=agent, request=request, reply=b"", copies=(*it.copies, request))

    def _gives_back(self, it: Process, number: int) -> Process:
        agent, _ = calls(it.agent, "tokens.give_back", span(number, 1))
        return it._replace(agent=agent, held=tuple(one for one in it.held if one != number))

    def _stops(self, it: Process) -> Process:
        it = functools.reduce(self._gives_back, it.held, it)
        return self._hands_on(_off(it)._replace(phase="ending", batches=0))

    def _hands_on(self, it: Process) -> Process:
        return _dead(it, "ended") if is_settled(it.agent) else self._asks(it, 0, "tokens.request")

    # With Redis.

    def with_redis(self, it: Process, shared: Shared, has_scripts: bool) -> Iterator[Step]:
        """Yield which of its packets may arrive, and what comes of it."""
        if it.request and not it.reply:
            step, reply = self._arrives(it, shared, it.request, has_scripts)
            waiting = step.process._replace(reply=reply)
            heard = self._heard(waiting, step.text)
            for one in [step._replace(process=waiting)] if self.bounds.in_two else heard:
                yield one._replace(shared=step.shared, is_copied=step.is_copied)
        for probe in it.probes:
            step, reply = self._arrives(it, shared, probe, has_scripts)
            yield step._replace(process=self._probed(step.process, probe, reply))
        for copy in it.copies if has_scripts else [one for one in it.copies if not one.sequence]:
            step, reply = self._arrives(it, shared, copy, has_scripts)
            step = step._replace(text=f"'s {_name(copy)} arrives unheard", is_copied=False)
            if copy.sequence:
                if (step.shared, step.process.record) != (shared, it.record):
                    yield step
            elif copy is not it.request or it.deadlines:  # it is not sent again
                off = _off(step.process._replace(deadlines=it.deadlines - 1))
                process = off if copy is it.request else step.process
                yield step._replace(process=process, lost=_plain_numbers(copy, reply))

    def _arrives(
        self, it: Process, shared: Shared, request: Request, has_scripts: bool
    ) -> tuple[Step, bytes]:
        if request.sequence and not has_scripts:
            return Step(f"'s {_name(request)} arrives", it, shared=shared), b"-NOPERM scripts"
        after, record, reply = applied(shared, it.record, request)
        assert newest(record) >= newest(it.record), "a sequence only grows"
        least = newest(it.replica if self.bounds.failovers else record)
        copies = tuple(
            one
            for one in it.copies  # which may change something when they arrive, once more
            if (one is not request if not one.sequence else one.sequence > least)
            or (one.sequence and applied(after, record, one)[:2] != (after, record))
        )
        arrived = it._replace(record=record, copies=copies)
        text, is_copied = f"'s {_name(request)} arrives", bool(self.bounds.wait)
        return Step(text, arrived, shared=after, is_copied=is_copied), reply

    def _heard(self, it: Process, text: str) -> Iterator[Step]:
        """Yield what comes of the reply to the request under way."""
        request = it.request
        assert request is not None
        agent, numbers, why = reads(it.agent, it.reply, request)
        it = it._replace(agent=agent, request=None, reply=b"")
        text = f"{text}, and {_name(request)} {why or 'is answered'}"
        if it.phase == "ending":
            yield Step(text, _dead(it, "killed") if why else self._hands_on(it))
        elif why:
            yield Step(text, self._asks(it, request.visits) if "refused" in why else _off(it))
        else:
            for count in range(min(it.goers, len(numbers)) + 1):
                for gone in itertools.combinations(numbers, count):
                    shown = tuple(one for one in numbers if one not in gone)
                    held = (*it.held, *gone) if request.sequence else it.held
                    after = it._replace(goers=it.goers - count, held=tuple(sorted(held)))
                    lost = () if request.sequence else gone
                    yield Step(
                        f"{text}: it shows {list(shown)} of {list(numbers)}", after, shown, lost
                    )

    def _probed(self, it: Process, probe: Request, reply: bytes) -> Process:
        agent, _, why = reads(it.agent, reply, probe)
        rest = tuple(one for one in it.probes if one is not probe)
        if not why:
            return it._replace(agent=agent, phase="on", probes=())
        if "refused" in why:
            agent, plain = calls(agent, "request", 0)
            rest = (*rest, plain)
        return it._replace(agent=agent, probes=rest)


def _plain_numbers(request: Request | None, reply: bytes) -> tuple[int, ...]:
    is_plain = request is not None and not request.sequence and reply
    return tuple(span(int(reply[1:]), request.visits)) if request and is_plain else ()


def _off(it: Process) -> Process:
    agent, _ = calls(it.agent, "tokens.abandon")
    return it._replace(agent=agent, phase="off", request=None, reply=b"", probes=())


def _dead(it: Process, phase: str) -> Process:
    return Process(
        it.agent, phase, copies=it.copies, held=it.held, record=it.record, replica=it.replica
    )


def _name(request: Request | None) -> str:
    assert request is not None
    kind = f"token {request.sequence}" if request.sequence else "plain command"
    return f"{kind} for {request.visits}"
