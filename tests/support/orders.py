"""Every order of events: a search through all that may happen to tokens, breadth first.

Processes, their visitors, the network and Redis take steps. Each state that they can reach is
looked at once. In each, no number was shown twice, and none that was shown is spare. In each in
which nothing is under way, the numbers that were shown and those that are spare are together 1 to
the counter, each once, but for those that `docs/counting.md` says are lost.

Orders that are alike are searched once:

- Any copy of a token may arrive at any time, again and again, unheard. So no event is needed for
  connections that are cut before or after a token arrives, and then send it again, nor for replies
  that are lost or late: a reply is heard at once, or never. `in_two` searches them all the same.
- What a process does by itself changes nothing for others. So where a process waits for nothing
  from Redis, its own steps are taken first. What is wrong at last is wrong in these orders too.
- Processes that are alike are sorted.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

from tests.support.life import (
    Life,
    Process,
    Shared,
    Step,
    could_hold,
    delivery,
    frozen,
    is_settled,
)  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """How much may happen: to each process, and to Redis in all."""

    def __str__(self) -> str:
        return ", ".join(
            f"{one.name}={value}"
            for one in fields(self)
            if (value := getattr(self, one.name)) != one.default
        )

    processes: int = 1
    batches: int = 2
    sizes: tuple[int, ...] = (1, 2)
    deadlines: int = 0
    goers: int = 0  # visitors who go, each before its number comes or after
    looks: int = 0  # probes, and connections that are cut while the process ends
    beside: int = 1  # probes that are under way at once
    starts: bool = False  # it looks for Redis first
    ends: bool = True
    kills: int = 0
    cuts: int = 0  # only with in_two, else there is no end to them
    in_two: bool = False
    wait: int = 0
    failovers: int = 0
    refusals: int = 0  # of scripts; they are allowed again
    evictions: int = 0  # of the spare numbers
    records_go: bool = False  # or of a record


class World(NamedTuple):
    """A state. Processes and what they share are the numbers of values in the search's tables."""

    shared: int
    replica: int
    processes: tuple[int, ...]
    shown: int = 0  # numbers as bits
    lost: int = 0
    has_scripts: bool = True
    refusals: int = 0
    failovers: int = 0
    evictions: int = 0


class Found(NamedTuple):
    """What a search went through."""

    states: int
    steps: int
    seconds: float
    ends: set[tuple[object, ...]]
    """What is shared and was shown, and each process's tokens and record, once all have ended."""


class Violation(AssertionError):
    """A schedule that breaks the promise, one event a line."""


class Search:
    """A search within bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = it = bounds
        self.life = Life(it.sizes, it.wait, it.beside, it.ends, it.failovers > 0, it.in_two)
        self._values: list[Process | Shared] = []
        self._numbers: dict[Process | Shared, int] = {}
        self._alone: dict[int, list[Step]] = {}
        self._with_redis: dict[tuple[int, int, bool], list[Step]] = {}
        self._rest: dict[int, int | None] = {}
        self._spares: dict[int, tuple[int, int]] = {}
        self._copied: dict[tuple[int, bool], int] = {}
        self.ends: set[tuple[object, ...]] = set()

    def _id(self, value: Process | Shared) -> int:
        if (found := self._numbers.get(value)) is None:
            found = self._numbers[value] = len(self._values)
            self._values.append(value)
        return found

    def first(self) -> World:
        it = self.bounds
        process = Process(
            frozen(delivery(it.wait)), "off" if it.starts else "on",
            it.batches, it.deadlines, it.goers, it.looks, it.kills, it.cuts,
        )  # fmt: skip
        shared = self._id((None, ()))
        processes = (self._id(process),) * it.processes
        return World(shared, shared, processes, 0, 0, True, it.refusals, it.failovers, it.evictions)

    def run(self) -> Found:
        """Go through all states.

        :raises Violation: with the shortest schedule that breaks the promise.
        """
        start, steps = time.process_time(), 0
        first = self.first()
        came_from: dict[World, World | None] = {first: None}
        edge = [first]
        while edge:
            following = []
            for world in edge:
                for _, after in self.steps(world):
                    steps += 1
                    after = _sorted(after)
                    if after in came_from:
                        continue
                    came_from[after] = world
                    if (wrong := self.wrong(world, after)) is not None:
                        raise Violation(self._schedule(after, came_from, wrong))
                    following.append(after)
            edge = following
        return Found(len(came_from), steps, time.process_time() - start, self.ends)

    # What is right.

    def wrong(self, before: World, it: World) -> str | None:
        """Return what is wrong in a state, if anything is."""
        counter, spare = self._spare(it.shared)
        if it.shown < 0:
            return "a number was shown twice"
        if both := spare & it.shown:
            return f"{_bits(both)} are spare and were shown"
        excused = it.lost
        for one in it.processes:
            if (held := self._resting(one)) is None:
                return None
            excused |= held
        seen = sorted((self._seen(one) for one in it.processes), key=repr)
        if all(phase in ("ended", "killed") for *_, phase in seen):
            self.ends.add((self._values[it.shared], it.shown, *seen))
        every = (1 << counter + 1) - 2
        if missing := every & ~(it.shown | spare | excused):
            return f"{_bits(missing)} are neither shown nor spare"
        if beyond := (it.shown | spare) & ~every:
            return f"{_bits(beyond)} are beyond the counter"
        return None

    def _seen(self, number: int) -> tuple[object, ...]:
        it = self._process(number)
        return it.agent, it.record, it.phase

    def _spare(self, shared: int) -> tuple[int, int]:
        if shared not in self._spares:
            counter, groups = self._values[shared]  # type: ignore[misc]
            bits = [1 << n for first, last in groups for n in range(int(first), int(last) + 1)]  # type: ignore[has-type]
            assert len(bits) == len(set(bits)), f"groups overlap: {groups}"  # type: ignore[has-type]
            self._spares[shared] = int(counter or 0), sum(bits)  # type: ignore[has-type]
        return self._spares[shared]

    def _resting(self, number: int) -> int | None:
        """Return the numbers that go with a process, as bits; None while something is under way."""
        if number not in self._rest:
            it = self._process(number)
            held = 0
            if it.phase == "killed":
                held = sum(1 << n for n in could_hold(it))
            is_at_rest = (
                it.phase == "on" and not it.request and not it.held and is_settled(it.agent)
            )
            self._rest[number] = held if is_at_rest or it.phase in ("ended", "killed") else None
        return self._rest[number]

    def _process(self, number: int) -> Process:
        value = self._values[number]
        assert isinstance(value, Process)
        return value

    # What may happen.

    def steps(self, world: World, all_orders: bool = False) -> Iterator[tuple[str, World]]:
        """Yield what may happen next: as a line to read, and the state then.

        :arg all_orders: whether those that are alike are left in.
        """
        if not all_orders and not self.bounds.in_two:
            for i, number in enumerate(world.processes):
                value = self._process(number)
                if value.request is None and not value.probes and (own := self._own(number)):
                    yield from (self._step(world, i, step) for step in own)
                    return
        for i, number in enumerate(world.processes):
            for step in self._own(number):
                yield self._step(world, i, step)
            key = number, world.shared, world.has_scripts
            if (found := self._with_redis.get(key)) is None:
                shared = self._values[world.shared]
                found = list(self.life.with_redis(self._process(number), shared, world.has_scripts))  # type: ignore[arg-type]
                self._with_redis[key] = found
            for step in found:
                yield self._step(world, i, step)
        yield from self._of_redis(world)

    def _own(self, number: int) -> list[Step]:
        if (found := self._alone.get(number)) is None:
            found = self._alone[number] = list(self.life.alone(self._process(number)))
        return found

    def _step(self, world: World, i: int, step: Step) -> tuple[str, World]:
        processes = list(world.processes)
        processes[i] = self._id(step.process)
        shown = sum(1 << n for n in step.shown)
        after = world._replace(
            processes=tuple(processes),
            shared=world.shared if step.shared is None else self._id(step.shared),
            shown=-1 if world.shown & shown else world.shown | shown,
            lost=world.lost | sum(1 << n for n in step.lost),
        )
        text = f"{chr(ord('A') + i)}{'' if step.text.startswith(chr(39)) else ' '}{step.text}"
        return text, self._with_replica(after) if step.is_copied else after

    def _of_redis(self, world: World) -> Iterator[tuple[str, World]]:
        if world.failovers:
            if (copied := self._with_replica(world)) != world:
                yield "the replica gets what the primary has", copied
            failed = self._with_replica(world, takes_over=True)
            yield "the replica becomes the primary", failed._replace(failovers=world.failovers - 1)
        if world.refusals and world.has_scripts:
            yield (
                "scripts are refused",
                world._replace(has_scripts=False, refusals=world.refusals - 1),
            )
        if not world.has_scripts:
            yield "scripts are allowed", world._replace(has_scripts=True)
        if world.evictions:
            left = world._replace(evictions=world.evictions - 1)
            counter, _ = self._values[world.shared]  # type: ignore[misc]
            yield "the spare numbers are evicted", left._replace(shared=self._id((counter, ())))  # type: ignore[has-type]
            for i, number in enumerate(world.processes if self.bounds.records_go else ()):
                gone = Step("'s record is evicted", self._process(number)._replace(record=()))
                yield self._step(left, i, gone)

    def _with_replica(self, world: World, takes_over: bool = False) -> World:
        """Return the world once the replica has what the primary has, or the other way round."""
        if not self.bounds.failovers:
            return world
        shared = world.replica if takes_over else world.shared
        return world._replace(
            shared=shared,
            replica=shared,
            processes=tuple(self._copy(one, takes_over) for one in world.processes),
        )

    def _copy(self, number: int, takes_over: bool) -> int:
        if (number, takes_over) not in self._copied:
            it = self._process(number)
            record = it.replica if takes_over else it.record
            after = self._id(it._replace(record=record, replica=record))
            self._copied[number, takes_over] = after
        return self._copied[number, takes_over]

    # What is told.

    def _schedule(self, last: World, came_from: dict[World, World | None], wrong: str) -> str:
        """Return a schedule to read, in which processes keep their names."""
        path: list[World] = []
        world: World | None = last
        while world is not None:
            path.insert(0, world)
            world = came_from[world]
        lines, now = [], path[0]
        for target in path[1:]:
            text, now = next(
                one for one in self.steps(now, all_orders=True) if _sorted(one[1]) == target
            )
            lines.append(text)
        shared = self._values[now.shared]
        return "\n".join([*lines, wrong, f"shown {_bits(now.shown)}, in Redis {shared}"])


def _sorted(world: World) -> World:
    if len(world.processes) == 1:
        return world
    return world._replace(processes=tuple(sorted(world.processes)))


def _bits(mask: int) -> list[int]:
    return [n for n in range(mask.bit_length()) if mask >> n & 1] if mask >= 0 else []
