"""Everything that Redis and the network to it do wrong, and what the visitors see meanwhile."""

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import raw_http
from tests.support.driven import BUSY, driven
from tests.support.exact import assert_exact, numbers
from tests.support.nodes import Node
from tests.support.ports import held_port
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.replayed import check
from tests.support.traces import Trace, recorded
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: Seconds that a visit may wait for Redis where none is to lose its number.
LONG_DEADLINE = 10


@dataclass
class Stage:
    """What a fault is done to: the Valkey, and the proxy before it."""

    valkey: Valkey
    proxy: Proxy
    folder: Path


#: Does something to a stage, and undoes it at the end of the context.
Inject = Callable[[Stage], AbstractContextManager[None]]


def during(begin: Callable[[Stage], object], end: Callable[[Stage], object]) -> Inject:
    """Do one thing at first, and another at the end."""

    @contextlib.contextmanager
    def inject(stage: Stage) -> Iterator[None]:
        begin(stage)
        yield
        end(stage)

    return inject


def line(to: str = "client", cut: bool = False, **does: object) -> Inject:
    """Set what the line to the server does, or the one to Redis.

    :arg to: client or target.
    :arg cut: whether what was lost stays so.
    """

    @contextlib.contextmanager
    def inject(stage: Stage) -> Iterator[None]:
        vars(getattr(stage.proxy, f"to_{to}")).update(does)
        yield
        stage.proxy.heal()
        if cut:
            stage.proxy.cut()

    return inject


@contextlib.contextmanager
def repeatedly(act: Callable[[], object], seconds: float = 0.05) -> Iterator[None]:
    """Do something over and over."""
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(seconds):
            act()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def killed(stage: Stage, **again: str) -> Iterator[None]:
    """Kill Redis, and start it again, twice."""
    stage.valkey.kill()
    stage.valkey.start()
    stage.valkey.kill()
    yield
    stage.valkey.start(**again)


@contextlib.contextmanager
def failed_over(stage: Stage) -> Iterator[None]:
    """``FAILOVER`` to a replica, and back."""
    primary = stage.valkey.client
    other = Node(stage.folder)
    other.start()
    limit = int(PATIENCE * 1000)  # milliseconds
    with held_port() as held:
        port = held.getsockname()[1]  # for its replica
        primary.config_set("bind", "127.0.0.1")
        primary.config_set("port", port)
        other.client.replicaof("127.0.0.1", port)
        wait_until(lambda: primary.info("replication").get("connected_slaves") == 1)
        wait_until(lambda: primary.info("replication")["slave0"]["state"] == "online")
        primary.execute_command("FAILOVER", "TIMEOUT", limit)
        wait_until(other.is_primary)
        yield
        wait_until(lambda: other.replicas_in_step() == 1)
        other.client.execute_command("FAILOVER", "TIMEOUT", limit)
        wait_until(lambda: primary.role()[0] == b"master")
        primary.config_set("port", 0)
        other.close()  # the soak does this again


@contextlib.contextmanager
def late_copies(stage: Stage) -> Iterator[None]:
    """Cut connections off, and deliver what was sent on them when it has been sent again."""
    to_redis = stage.proxy.to_target

    def begin_or_end() -> None:
        to_redis.late = 0.0 if to_redis.late else 0.5

    with repeatedly(begin_or_end):
        yield
    stage.proxy.heal()


@dataclass(frozen=True)
class Fault:
    """A row: what is injected, for how long, what the visitor sees, what the counter may do."""

    inject: Inject
    #: How long it lasts at least: until the server has looked for Redis more than once.
    seconds: float = 1.2
    #: The visitors see the fallback page, or go on seeing numbers.
    counter_off: bool = True
    #: The counter may begin anew.
    restarts: bool = False
    deadline: float = 1.0


def connections_die(stage: Stage) -> None:
    with stage.proxy.lost():
        pass


FAULTS = {
    # name: what is injected, and what differs from a page that shows the fallback at once.
    "refused": Fault(during(lambda it: it.proxy.refuse(), lambda it: it.proxy.listen())),
    "black hole on connect": Fault(lambda it: it.proxy.full_backlog()),
    "black hole after connect": Fault(line("target", cut=True, black_hole=True)),
    "dead and nobody told": Fault(
        during(connections_die, lambda _: None), seconds=3, counter_off=False, deadline=10
    ),
    "hung": Fault(during(lambda it: it.valkey.hang(), lambda it: it.valkey.go_on()), seconds=3),
    "killed and restarted twice": Fault(killed),
    # Its append-only file stays unread.
    "restarted empty": Fault(functools.partial(killed, appendonly="no"), restarts=True),
    "every client killed every 50 ms": Fault(
        lambda it: repeatedly(
            lambda: it.valkey.client.client_kill_filter(_type="normal", skipme=True)
        ),
        counter_off=False,
    ),
    "failed over and back": Fault(failed_over),
    # A visit may wait for two replies, and on a busy machine for more: far from the deadline.
    "replies 500 ms late": Fault(line(delay=0.5), counter_off=False, deadline=10, seconds=3),
    "replies 1.9 s late": Fault(line(delay=1.9), deadline=2, seconds=5),
    "replies after the deadline": Fault(line(delay=1.3), seconds=3),
    "replies corrupted": Fault(line(change=lambda data: data.replace(b":", b"?"))),
    "replies swallowed": Fault(line(cut=True, black_hole=True), seconds=1.5),
    # Its sender has given it up, and Redis has others' again.
    "commands after the deadline": Fault(line("target", delay=1.3)),
    "copies of commands 500 ms late": Fault(late_copies, seconds=4, counter_off=False),
    "scripts forgotten every 20 ms": Fault(
        lambda it: repeatedly(it.valkey.client.script_flush, seconds=0.02), counter_off=False
    ),
    "data forgotten": Fault(
        during(lambda it: it.valkey.client.flushall(), lambda _: None),
        counter_off=False,
        restarts=True,
    ),
    "connections reset every 50 ms": Fault(
        lambda it: repeatedly(lambda: it.proxy.cut(reset=True)), seconds=4, counter_off=False
    ),
}


#: Those that come a second time, while a crowd comes back as soon as it is answered.
CROWD = (
    *("hung", "killed and restarted twice", "connections reset every 50 ms", "replies swallowed"),
    *("commands after the deadline", "copies of commands 500 ms late"),
    "scripts forgotten every 20 ms",
)


def start(program: Start, url: str, deadline: float, **variables: str) -> Program:
    flags = f"--redis-url={url}", f"--redis-timeout={deadline}", "--access-log=false"
    server = program(*flags, **variables)
    server.wait_for(b"counter on")
    return server


@pytest.mark.parametrize(
    ("name", "rate"), [*((name, 200) for name in FAULTS), *((name, None) for name in CROWD)]
)
def test_no_visitor_waits_and_each_number_is_shown_once(
    name: str, rate: float | None, valkey: Valkey, program: Start, folder: Path
) -> None:
    fault, trace = FAULTS[name], folder / "trace"
    # A busy machine may get nothing through between two cuts for a second.
    deadline = fault.deadline if fault.counter_off else LONG_DEADLINE
    with Proxy([valkey.path]) as proxy:
        url, variables = f"redis://127.0.0.1:{proxy.port}", recorded(folder, trace) if rate else {}
        server = start(program, url, deadline, **variables)
        with driven(server, rate=rate) as load:
            well = load.now
            with fault.inject(Stage(valkey, proxy, folder)):
                begun = load.now
                load.wait(fault.seconds)
                if fault.counter_off:
                    wait_until(load.uncounted)
                    off = min(visit.end for visit in load.uncounted())
                    wait_until(lambda: sum(visit.at > off for visit in load.uncounted()) >= 100)
                ended = load.now
            load.wait_counted(load.now)
        report, uncounted = load.report(), load.uncounted()
        assert report.failed == 0, report.as_text()
        assert load.latencies()[-1] < deadline + BUSY
        assert valkey.counter() <= report.made
        assert bool(uncounted) is fault.counter_off
        if fault.restarts:
            shown = numbers(load, since=begun)
            assert len(shown) == len(set(shown))
        else:
            seen = assert_exact(valkey.client, [server], numbers(load))
            assert not rate or check(Trace(trace).events(), shown=seen.elements())
    if uncounted:
        assert off > well
        pages = [visit for visit in load.visits if off < visit.at < ended]
        # Who waits for Redis does so for a deadline: what is far from it is at once, on any
        # machine.
        assert load.latencies(pages)[int(len(pages) * 0.99)] < deadline / 4


#: What the server may take more at the end of the soak than after its first second.
MOST_GROWTH, MOST_DESCRIPTORS = 16 << 20, 4  # bytes


@pytest.mark.timeout(4000)
def test_a_server_that_has_seen_every_fault_is_as_it_was(
    valkey: Valkey, program: Start, folder: Path, request: pytest.FixtureRequest
) -> None:
    seconds, deadline = 60 * float(request.config.getoption("--soak")), Fault.deadline
    fitting = [it for it in FAULTS.items() if it[1].deadline == deadline and not it[1].restarts]
    chance, seen, trace = random.Random(1), dict[str, float](), folder / "trace"
    with Proxy([valkey.path]) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        server = start(program, url, deadline, **recorded(folder, trace))
        with driven(server) as load:
            wait_until(lambda: len(load.visits) >= 200)  # then each of its connections is there
            before = raw_http.memory(server), raw_http.descriptors(server)
            while load.now < seconds or not seen:
                name, fault = chance.choice(fitting)
                with fault.inject(Stage(valkey, proxy, folder)):
                    load.wait(chance.uniform(0.2, 2))
                ended = load.now
                seen[name] = max(seen.get(name, 0), load.wait_counted(ended))
                wait_until(lambda at=ended: len(load.counted_since(at)) > 60)  # type: ignore[misc]
            # What a fault has left to close may take a moment more.
            wait_until(lambda: raw_http.descriptors(server) <= before[1] + MOST_DESCRIPTORS)
            after = raw_http.memory(server), raw_http.descriptors(server)
        report = load.report()
        shown = assert_exact(valkey.client, [server], numbers(load))
    replies = check(Trace(trace).events(), shown=shown.elements())
    print(f"replies that are those of an order that was searched: {replies:,}")
    print(report.as_text())
    print(f"memory {before[0] >> 10:,} kB, at the end {after[0] >> 10:,} kB")
    print(f"descriptors {before[1]}, at the end {after[1]}")
    print("counting again after, at the latest, in s:")
    print(*(f"  {name:40} {latest:.2f}" for name, latest in sorted(seen.items())), sep="\n")
    assert report.failed == 0
    assert load.latencies()[-1] < deadline + BUSY
    assert after[0] < before[0] + MOST_GROWTH
