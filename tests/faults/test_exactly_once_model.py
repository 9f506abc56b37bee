"""Whatever happens between the counters and Redis, in whatever order: each number is shown once.

Real counters count in a real Valkey, over a network and by a clock that hypothesis moves. Packets
come late, twice or never, connections are cut, Redis is restarted and replaced, counters end and
visitors leave. ``MODEL_MINUTES=120`` makes it go on for two hours.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import counter.connection
import counter.delivery
import counter.link
import counter.outage
import counter.visits
from counter import Visits
from tests.support import Patch
from tests.support.replayed import State, check
from tests.support.simulated import Connector, Network, Packet, Pair, VirtualLoop, take_over
from tests.support.traces import Trace, recording

MINUTES = float(os.environ.get("MODEL_MINUTES", 0))

#: Steps of one example, examples of one round, and steps that a run has at least.
STEPS, EXAMPLES, LEAST = 50, 550, 20_000

#: One in so many of these steps is taken, as each costs a tenth of a second and more.
RARE = 25

PROCESSES = 2

#: Seconds from a visit to its number.
DEADLINE = 2.0

#: The modules that look at a clock.
TIMED = (counter.delivery, counter.link, counter.outage)

#: What becomes of a reply.
REPLIES = [
    *("arrives", "is late", "is lost", "is cut off", "comes in part"),
    *("is OOM", "is LOADING", "says that no replica has it"),
]

SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    derandomize=not MINUTES,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

which = st.integers(0, 99)  # of those that there are, the newest first
who = st.integers(0, PROCESSES - 1)


def pick(some: list, which: int):  # type: ignore[no-untyped-def,type-arg]
    """Return one of them, 0 being the newest."""
    return some[-1 - which % len(some)]


class Model(RuleBasedStateMachine):
    """Counters, their visitors, and all that may happen to them."""

    servers: Pair
    steps = 0
    replayed = 0
    shown_in_all = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        names = ("monotonic", "perf_counter", "time")
        clock = SimpleNamespace(**dict.fromkeys(names, self.loop.time))
        for module in TIMED:
            module.time = clock  # type: ignore[attr-defined]
        self.servers.wipe()
        self.network = Network(self.loop, self.servers)
        counter.visits.Connector = lambda *_, **__: Connector(self.network)  # type: ignore
        self.came: dict[asyncio.Task[int | None], float] = {}  # who waits, and since when
        self.shown: set[int] = set()
        self.names = itertools.count(1)
        self.processes: list[Visits] = []
        self.is_at_once = False
        self.half = False
        self.recording = contextlib.ExitStack()
        self.trace: Trace | None = None
        self.copies: list[object] = []

    @initialize(
        first=st.sampled_from([0, -3]),
        wait=st.sampled_from([0, 1]),
        late_copies_arrive=st.booleans(),
        others_end=st.booleans(),
        is_traced=st.sampled_from([False] * 9 + [True]),
    )
    def begin(
        self, first: int, wait: int, late_copies_arrive: bool, others_end: bool, is_traced: bool
    ) -> None:
        """Begin.

        :arg first: what the counter holds at first.
        :arg wait: replicas that must acknowledge.
        :arg late_copies_arrive: whether those that are left at the end do.
        :arg others_end: whether only one process is left at the end; else all were off before.
        """
        if is_traced:
            folder = self.recording.enter_context(tempfile.TemporaryDirectory())
            self.trace = self.recording.enter_context(recording(Path(folder, "trace")))
        self.first, self.wait = first, wait
        self.late_copies_arrive, self.others_end = late_copies_arrive, others_end
        self.servers.primary.run(b"SET counter %d\r\n" % first)
        self.processes += [self.started() for _ in range(PROCESSES)]

    def started(self) -> Visits:
        """Return another counter."""
        visits = Visits("redis://nowhere", wait=self.wait, timeout=DEADLINE)
        visits._delivery.tokens.process_id = f"process-{next(self.names)}"
        self.loop.create_task(visits.start(1.0))
        self.loop.go_on()
        return visits

    def do(self, call: Callable[..., object] = lambda: None, *args: object) -> None:
        """Do something, and what follows from it; no number is shown twice."""
        type(self).steps += 1
        if self.is_at_once:
            self.is_at_once = False
            self.loop.call_soon(call, *args)
        else:
            self.loop.do(call, *args)
            self.check()

    def check(self) -> None:
        assert not self.loop.errors, self.loop.errors
        for one, since in list(self.came.items()):
            waited = self.loop.time() - since
            assert one.done() or waited <= DEADLINE, f"a visitor has waited for {waited} s"
            if one.done():
                del self.came[one]
                number = None if one.cancelled() else one.result()
                assert number not in self.shown, f"{number} was shown twice"
                self.shown |= {number} - {None}  # type: ignore[arg-type]
        if self.shown:
            assert max(self.shown) <= self.servers.primary.counter()

    def visit(self, process: Visits, visitors: int, leave: bool = False) -> None:
        """Let visitors come.

        :arg leave: whether they are gone when the page is to be written.
        """

        async def visitor() -> int | None:
            number = await process.count()
            if leave and number is not None:
                process.give_back(number)
            return None if leave else number

        new = [self.loop.create_task(visitor()) for _ in range(visitors)]
        self.came |= dict.fromkeys(new, self.loop.time())

    # What may happen.

    @rule()
    def two_at_once(self) -> None:
        """Let the next two things happen in one turn of the loop."""
        self.do()
        self.is_at_once = True

    @rule(who=who, visitors=st.sampled_from([1, 2, 3, 7, 70, 300]), leave=st.booleans())
    def visitors_come(self, who: int, visitors: int, leave: bool) -> None:
        self.do(self.visit, self.processes[who], visitors, leave and visitors < 7)

    @rule(which=which)
    @precondition(lambda self: self.came)
    def visitor_gives_up(self, which: int) -> None:
        self.do(pick([*self.came], which).cancel)

    @rule(which=which, reply=st.sampled_from(REPLIES))
    @precondition(lambda self: self.network.packets)
    def packet_arrives(self, which: int, reply: str) -> None:
        self.do(self.arrive, pick(self.network.packets, which), reply)

    def arrive(self, packet: Packet, reply: str) -> None:
        network = self.network
        if packet not in network.packets:
            return
        network.packets.remove(packet)
        if reply == "is LOADING":  # and nothing is done
            packet.line.give(b"-LOADING Valkey is loading the dataset in memory\r\n")
            return
        answer = network.run(packet, acknowledged=reply != "says that no replica has it")
        if reply == "is cut off":
            packet.line.cut()
        if reply == "is OOM":
            answer = b"-OOM command not allowed\r\n"
        now = {"is late": 0, "is lost": 0, "comes in part": answer.find(b"\n") + 1 - 2 * self.half}
        self.half = not self.half
        at_once = now.get(reply, len(answer))
        packet.line.give(answer[:at_once])
        if reply != "is lost" and answer[at_once:]:
            network.replies.append((packet.line, answer[at_once:]))

    @rule(which=which)
    @precondition(lambda self: self.network.replies)
    def reply_arrives(self, which: int) -> None:
        reply = pick(self.network.replies, which)
        self.network.replies.remove(reply)
        self.do(reply[0].give, reply[1])

    @rule(which=which)
    @precondition(lambda self: self.network.sent)
    def packet_arrives_again(self, which: int) -> None:
        self.do(self.run_copy, pick(self.network.sent, which))

    def run_copy(self, packet: Packet) -> None:
        if self.trace:
            self.copies.append(object())  # each comes by a way of its own
            self.trace.sent(self.copies[-1], packet.data.partition(b"*3\r\n$4\r\nWAIT")[0])
        self.network.run(packet)

    @rule()
    def all_arrives(self) -> None:
        with self.network.flowing():
            self.do(self.network.deliver_all)

    @rule(which=which)
    @precondition(lambda self: self.network.lines)
    def connection_is_cut(self, which: int) -> None:
        self.do(pick(self.network.lines, which).cut)

    @rule(way=st.sampled_from(["works", "is refused", "hangs", "is cut"]))
    def connecting(self, way: str) -> None:
        self.do(setattr, self.network, "connecting", way)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 1.0, 2.1]))
    def time_passes(self, seconds: float) -> None:
        self.loop.go_on(seconds)
        self.do()

    @rule()
    def redis_forgets_the_script(self) -> None:
        self.do(self.servers.primary.run, b"SCRIPT FLUSH SYNC\r\n")

    @rule(once_in=st.integers(1, RARE))
    def scripts_are_refused_or_allowed_again(self, once_in: int) -> None:
        self.network.scripts_refused ^= once_in == RARE
        self.do()

    @rule(who=who)
    def process_ends(self, who: int) -> None:
        """Let another one take its place; Redis answers it, and runs its script."""
        self.do()
        self.network.scripts_refused = False
        self.close(self.processes[who])
        self.processes[who] = self.started()

    @rule(
        once_in=st.integers(1, RARE),
        how=st.sampled_from([Pair.restart, Pair.fail_over]),
        notice=st.booleans(),
    )
    def redis_restarts_or_is_replaced(
        self, once_in: int, how: Callable[[Pair], None], notice: bool
    ) -> None:
        """Let counters see that their connections end, or after a failover leave it to them."""
        self.do(self.lose_primary if once_in > RARE - 2 else lambda *_: None, how, notice)

    def lose_primary(self, how: Callable[[Pair], None], notice: bool) -> None:
        lost = self.servers.primary
        how(self.servers)
        for line in [one for one in self.network.lines if one.server is lost]:
            if notice or how is Pair.restart:
                line.cut()

    # How it ends.

    def close(self, process: Visits) -> None:
        with self.network.flowing():
            self.loop.go_on()
            task = self.loop.create_task(process.close())
            self.loop.go_on()
        self.check()
        assert task.done()
        task.result()

    def teardown(self) -> None:
        try:
            if self.processes:
                self.end()
        finally:
            self.loop.end()
            self.recording.close()

    def end(self) -> None:
        """Let everything be well again, and all numbers be used up."""
        self.heal()
        last, *others = self.processes
        for one in others if self.others_end else []:
            self.close(one)
        self.use_up_spare_numbers(last)
        numbers = range(self.first + 1, self.servers.primary.counter() + 1)
        missing = sorted({*numbers} - self.shown - self.network.at_most_once)
        assert not missing, f"of {numbers} nobody was shown {missing}"
        assert self.shown <= {*numbers}
        if self.trace:
            before: State = {b"counter": b"%d" % self.first}
            type(self).replayed += check(self.trace.events(), before, self.shown)
        client = self.servers.primary.client
        lasting = {key for key in client.scan_iter() if client.ttl(key) < 0}
        assert lasting == {b"counter"}, "Redis would keep these for ever"
        type(self).shown_in_all += len(numbers)

    def heal(self) -> None:
        """Let all copies arrive, or vanish, and time pass until all count."""
        self.network.scripts_refused = False
        self.loop.go_on()
        if not self.others_end:
            for one in self.processes:
                self.visit(one, 1)
            self.loop.go_on(DEADLINE)
            assert not any(one.up for one in self.processes)
        for packet in self.network.packets if self.late_copies_arrive else []:
            self.run_copy(packet)
        with self.network.flowing():
            self.loop.do(self.network.deliver_all)
            self.loop.go_on(5.0)
        self.check()
        assert not self.came
        assert all(one.up for one in self.processes)

    def use_up_spare_numbers(self, process: Visits) -> None:
        spare: object = True
        while spare:
            before = len(self.shown)
            with self.network.flowing():
                self.loop.do(self.visit, process, 1)
            self.check()
            assert len(self.shown) == before + 1, "a quiet visit did not count"
            spare = self.servers.primary.client.exists("{counter}:spares")


@pytest.mark.no_cover
@pytest.mark.timeout(600 + 60 * MINUTES)
def test_each_number_is_shown_once_whatever_happens(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(counter.connection, "take_over", take_over)
    for module in TIMED:
        monkeypatch.setattr(module, "time", time)  # which each example replaces
    real = counter.visits.Connector  # type: ignore[attr-defined]
    monkeypatch.setattr(counter.visits, "Connector", real)
    monkeypatch.setattr(logging.getLogger("friendlyhello.visits"), "disabled", True)

    class OnServers(Model):
        servers = Pair(folder)

    start, took = time.monotonic(), 0.0
    for seed in itertools.count(time.time_ns()):
        run_state_machine_as_test(
            hypothesis.seed(seed)(OnServers) if MINUTES else OnServers, settings=SETTINGS
        )
        took = time.monotonic() - start
        print(
            f"{OnServers.steps:,} steps in {took:.0f} s ({OnServers.steps / took:,.0f} steps/s), "
            f"{OnServers.shown_in_all:,} numbers, each shown once; {OnServers.replayed:,} replies "
            "of orders that are searched",
            flush=True,
        )
        if took >= 60 * MINUTES:
            break
    assert OnServers.steps >= LEAST
    assert OnServers.replayed > 0
