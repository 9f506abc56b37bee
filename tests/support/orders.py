"""Every order of events: a search through all that may happen to tokens, breadth first.

Processes, their visitors, the network and Redis take steps. Each state that they can reach is
looked at once. In each, no number was shown twice, and none that was shown is spare. In each in
which nothing is under way, the numbers that were shown and those that are spare are together 1 to
the counter, each once, but for those that `docs/counting.md` says are lost.

Orders that are alike are searched once:

- Any copy of a token may arrive at any time, again and again, unheard. So no event is needed for
  connections that are cut before or after a token arrives, and then send it again, nor for replies
  that are lost or late: a reply is heard at once, or never. `in_two` has them all the same.
- What a process does by itself changes nothing for others. So where a process waits for nothing
  from Redis, its own steps are taken first. What is wrong at last is wrong in these orders too.
- Processes that are alike are sorted.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

from counter.delivery import Delivery
from tests.support.life import ENDS, Bounds, Life, Process, Step
from tests.support.values import Shared, frozen, held_by, is_settled


class World(NamedTuple):
    """A state. Processes and what they share are the numbers of values in the search's tables."""

    shared: int
    replica: int
    processes: tuple[int, ...]
    shown: int  # numbers as bits, here and below; -1 once one was shown twice
    lost: int
    has_scripts: bool
    refusals: int
    failovers: int

    def canonical(self) -> "World":
        return self._replace(processes=tuple(sorted(self.processes)))


class Found(NamedTuple):
    """What a search went through, and the seconds of CPU that it took."""

    states: int
    steps: int
    seconds: float


class Violation(AssertionError):
    """A schedule that breaks the promise, one event a line."""


class Search:
    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.life = bounds, Life(bounds)
        self._values: list[Any] = []  # processes, and what they share
        self._numbers: dict[Process | Shared, int] = {}
        for name in ("_own", "_with_redis", "_spare", "_resting", "_copy"):
            method: Callable[..., Any] = getattr(self, name)
            setattr(self, name, functools.cache(method))

    def _id(self, value: Process | Shared) -> int:
        if (found := self._numbers.get(value)) is None:
            found = self._numbers[value] = len(self._values)
            self._values.append(value)
        return found

    # What the counter says of its refusals, it says in thousands of states.
    @patch.object(logging.getLogger("friendlyhello.visits"), "disabled", True)
    def run(self) -> Found:
        """Go through all states.

        :raises Violation: with the shortest schedule that breaks the promise.
        """
        start, steps, it = time.process_time(), 0, self.bounds
        left = it.batches, it.deadlines, it.goers, it.looks, it.kills, it.cuts
        process = Process(frozen(Delivery("counter", it.wait)), "off" if it.starts else "on", *left)
        shared, processes = self._id((None, ())), (self._id(process),) * it.processes
        first = World(shared, shared, processes, 0, 0, True, it.refusals, it.failovers)
        came_from: dict[World, World | None] = {first: None}
        edge = [first]
        while edge:
            following = []
            for world in edge:
                for _, after in self.steps(world):
                    steps += 1
                    after = after.canonical()
                    if after not in came_from:
                        came_from[after] = world
                        following.append(after)
                        if wrong := self.wrong(after):
                            raise Violation(self._schedule(after, came_from, wrong))
            edge = following
        return Found(len(came_from), steps, time.process_time() - start)

    # What is right.

    def wrong(self, it: World) -> str:
        every, spare = self._spare(it.shared)
        if it.shown < 0:
            return "a number was shown twice"
        if both := spare & it.shown:
            return f"{_numbers(both)} are spare and were shown"
        held = [self._resting(one) for one in it.processes]
        if None in held:
            return ""
        excused = functools.reduce(int.__or__, (one or 0 for one in held), it.lost)
        if missing := every & ~(it.shown | spare | excused):
            return f"{_numbers(missing)} are neither shown nor spare"
        beyond = (it.shown | spare) & ~every
        return f"{_numbers(beyond)} are beyond the counter" if beyond else ""

    def _spare(self, shared: int) -> tuple[int, int]:
        """Return the numbers up to the counter, and those that are spare."""
        counter, groups = self._values[shared]
        numbers = [n for first, last in groups for n in range(int(first), int(last) + 1)]
        assert len(numbers) == len(set(numbers)), f"groups overlap: {groups}"
        return (2 << int(counter or 0)) - 2, _bits(numbers)

    def _resting(self, number: int) -> int | None:
        """Return the numbers that went with a process; None while something is under way."""
        it = self._values[number]
        if it.phase in ENDS:
            return _bits({*it.held, *held_by(it.agent, it.record)}) if it.phase == "killed" else 0
        is_idle = it.phase == "on" and not it.request and not it.held
        return 0 if is_idle and is_settled(it.agent) else None

    # What may happen.

    def steps(self, world: World, all_orders: bool = False) -> Iterator[tuple[str, World]]:
        """Yield what may happen next: as a line to read, and the state then.

        :arg all_orders: whether those that are alike are left in.
        """
        for i, number in enumerate(world.processes if not all_orders else ()):
            it = self._values[number]
            waits = it.request or it.probes or self.bounds.in_two
            if not waits and (own := self._own(number)):
                yield from (self._after(world, i, step) for step in own)
                return
        for i, number in enumerate(world.processes):
            for step in self._own(number):
                yield self._after(world, i, step)
            for step in self._with_redis(number, world.shared, world.has_scripts):
                yield self._after(world, i, step)
        yield from self._of_redis(world)

    def _own(self, number: int) -> list[Step]:
        return list(self.life.alone(self._values[number]))

    def _with_redis(self, number: int, shared: int, has_scripts: bool) -> list[Step]:
        it = self._values
        return list(self.life.with_redis(it[number], it[shared], has_scripts))

    def _after(self, world: World, i: int, step: Step) -> tuple[str, World]:
        processes = list(world.processes)
        processes[i] = self._id(step.process)
        shown = _bits(step.shown)
        after = world._replace(
            processes=tuple(processes),
            shared=world.shared if step.shared is None else self._id(step.shared),
            shown=-1 if world.shown & shown else world.shown | shown,
            lost=world.lost | _bits(step.lost),
        )
        return f"{'ABC'[i]}{step.text}", self._replicated(after) if step.is_copied else after

    def _of_redis(self, it: World) -> Iterator[tuple[str, World]]:
        if it.failovers:
            yield "the replica gets what the primary has", self._replicated(it)
            after = self._replicated(it._replace(failovers=it.failovers - 1), takes_over=True)
            yield "the replica becomes the primary", after
        if not it.has_scripts:
            yield "scripts are allowed", it._replace(has_scripts=True)
        elif it.refusals:
            after = it._replace(has_scripts=False, refusals=it.refusals - 1)
            yield "scripts are refused", after

    def _replicated(self, world: World, takes_over: bool = False) -> World:
        """Return the world once the replica has what the primary has, or the other way round."""
        if not self.bounds.failovers:
            return world
        shared = world.replica if takes_over else world.shared
        processes = tuple(self._copy(one, takes_over) for one in world.processes)
        return world._replace(shared=shared, replica=shared, processes=processes)

    def _copy(self, number: int, takes_over: bool) -> int:
        it = self._values[number]
        record = it.replica if takes_over else it.record
        return self._id(it._replace(record=record, replica=record))

    # What is told.

    def _schedule(self, last: World, came_from: dict[World, World | None], wrong: str) -> str:
        """Return a schedule to read, in which processes keep their names."""
        path, world = [last], came_from[last]
        while world is not None:
            path, world = [world, *path], came_from[world]
        lines, now = [], path[0]
        for target in path[1:]:
            every = self.steps(now, all_orders=True)
            text, now = next(one for one in every if one[1].canonical() == target)
            lines.append(text)
        shown = _numbers(max(0, now.shown))
        return "\n".join([*lines, f"{wrong}; shown {shown}, in Redis {self._values[now.shared]}"])


def _bits(numbers: Any) -> int:
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits


def _numbers(bits: int) -> list[int]:
    return [n for n in range(bits.bit_length()) if bits >> n & 1]
