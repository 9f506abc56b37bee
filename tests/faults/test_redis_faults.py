"""Everything that Redis and the network to it do wrong, and what the visitors see meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from audit.load import Visit
from tests.support.driven import BUSY, Driven, driven
from tests.support.exact import assert_exact, assert_none_twice, numbers
from tests.support.nodes import Node
from tests.support.ports import held_port
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.replayed import check
from tests.support.traces import Trace, recorded
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: Seconds that a visit may wait, where no deadline is to pass.
NO_HURRY = 60

#: Seconds that a visit may wait for Redis where none is to lose its number.
LONG_DEADLINE = 10

#: Milliseconds that Valkey gets to fail over.
FAILOVER = int(PATIENCE * 1000)


@dataclass
class Stage:
    """What a fault is done to: the Valkey, and the proxy before it."""

    valkey: Valkey
    proxy: Proxy
    folder: Path
    deadline: float


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


def line(name: str, value: object, *, cut: bool = False, to: str = "client") -> Inject:
    """Set what the line to the server does, or to Redis.

    :arg value: or a function of the deadline.
    :arg cut: whether what was lost stays so.
    """

    def begin(stage: Stage) -> None:
        own = value(stage.deadline) if callable(value) and name != "change" else value
        setattr(getattr(stage.proxy, f"to_{to}"), name, own)

    def end(stage: Stage) -> None:
        stage.proxy.heal()
        if cut:
            stage.proxy.cut()

    return during(begin, end)


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


def configured(name: str, value: str, healthy: str, *, cut: bool = False) -> Inject:
    def begin(stage: Stage) -> None:
        stage.valkey.client.config_set(name, value)
        if cut:
            stage.proxy.cut()

    return during(begin, lambda stage: stage.valkey.client.config_set(name, healthy))


def killed(times: int = 1, **again: str) -> Inject:
    """Kill Redis, and start it again; the last time at the end."""

    def begin(stage: Stage) -> None:
        for _ in range(times - 1):
            stage.valkey.kill()
            stage.valkey.start()
        stage.valkey.kill()

    return during(begin, lambda stage: stage.valkey.start(**again))


@contextlib.contextmanager
def failed_over(stage: Stage) -> Iterator[None]:
    """``FAILOVER`` to a replica, and back."""
    primary = stage.valkey.client
    other = Node(stage.folder)
    other.start()
    with held_port() as held:
        port = held.getsockname()[1]  # for its replica
        primary.config_set("bind", "127.0.0.1")
        primary.config_set("port", port)
        other.client.replicaof("127.0.0.1", port)
        wait_until(lambda: primary.info("replication").get("connected_slaves") == 1)
        wait_until(lambda: primary.info("replication")["slave0"]["state"] == "online")
        primary.execute_command("FAILOVER", "TIMEOUT", FAILOVER)
        wait_until(other.is_primary)
        yield
        wait_until(lambda: other.replicas_in_step() == 1)
        other.client.execute_command("FAILOVER", "TIMEOUT", FAILOVER)
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
    #: The visitors see the fallback page, or go on seeing numbers; None where it may be both.
    counter_off: bool | None = True
    #: The counter may begin anew.
    restarts: bool = False
    deadline: float = 1.0


def connections_die(stage: Stage) -> None:
    with stage.proxy.lost():
        pass


def past(deadline: float) -> float:
    return deadline + 0.3


FAULTS = {
    # name: what is injected, and what differs from a page that shows the fallback at once.
    "refused": Fault(during(lambda it: it.proxy.refuse(), lambda it: it.proxy.listen())),
    "black hole on connect": Fault(lambda it: it.proxy.full_backlog()),
    "black hole after connect": Fault(line("black_hole", True, cut=True, to="target")),
    "dead and nobody told": Fault(
        during(connections_die, lambda _: None), seconds=3, counter_off=False, deadline=10
    ),
    "hung": Fault(during(lambda it: it.valkey.hang(), lambda it: it.valkey.go_on()), seconds=3),
    "killed and restarted": Fault(killed()),
    "killed and restarted twice": Fault(killed(times=2)),
    # Its append-only file stays unread.
    "restarted empty": Fault(killed(appendonly="no"), restarts=True),
    "every client killed every 50 ms": Fault(
        lambda it: repeatedly(
            lambda: it.valkey.client.client_kill_filter(_type="normal", skipme=True)
        ),
        counter_off=False,
    ),
    # Its end is the fault's.
    "paused": Fault(
        during(lambda it: it.valkey.client.client_pause(2000), lambda it: it.valkey.client.ping())
    ),
    "failed over and back": Fault(failed_over),
    "password changed": Fault(configured("requirepass", "secret", "", cut=True)),
    "memory full": Fault(configured("maxmemory", "1", "0")),
    "turned into a replica": Fault(
        during(
            lambda it: it.valkey.client.replicaof("127.0.0.1", 1),
            lambda it: it.valkey.client.replicaof("NO", "ONE"),
        )
    ),
    # A visit may wait for two replies, and on a busy machine for more: far from the deadline.
    "replies 50 ms late": Fault(line("delay", 0.05), counter_off=False, deadline=10),
    "replies 500 ms late": Fault(line("delay", 0.5), counter_off=False, deadline=10, seconds=3),
    "replies 1.9 s late": Fault(line("delay", 1.9), deadline=2, seconds=5),
    "replies after the deadline": Fault(line("delay", past), seconds=3),
    "replies cut in the middle": Fault(line("cut_after", 2)),
    "replies corrupted": Fault(line("change", lambda data: data.replace(b":", b"?"))),
    "replies byte by byte": Fault(line("drip", lambda deadline: deadline / 3), seconds=2.5),
    "replies stalled": Fault(line("delay", 3600, cut=True)),
    "replies swallowed": Fault(line("black_hole", True, cut=True), seconds=1.5),
    # Its sender has given it up, and Redis has others' again.
    "commands after the deadline": Fault(line("delay", past, to="target")),
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
    "connections half-closed every 50 ms": Fault(
        lambda it: repeatedly(it.proxy.half_close), counter_off=False
    ),
}


def deadline_of(fault: Fault) -> float:
    """Return the deadline: a busy machine may get nothing through between two cuts for a second."""
    return LONG_DEADLINE if fault.counter_off is False else fault.deadline


def start(program: Start, url: str, deadline: float, **variables: str) -> Program:
    flags = f"--redis-url={url}", f"--redis-timeout={deadline}", "--access-log=false"
    server = program(*flags, **variables)
    server.wait_for(b"counter on")
    return server


def at_once(load: Driven, after: float) -> list[Visit]:
    """The visits that began after a moment and were answered without a number."""
    return [visit for visit in load.uncounted() if visit.at > after]


def assert_nobody_waited(load: Driven, visits: list[Visit], deadline: float) -> None:
    """Assert that no visits, but for one in a hundred, waited for Redis.

    Those that wait do so for a deadline, so what is far from it is at once, on any machine.
    """
    latencies = load.latencies(visits)
    assert latencies[int(len(latencies) * 0.99)] < deadline / 4


@pytest.mark.parametrize("fault", FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_no_visitor_waits_and_each_visit_counts_once(
    fault: Fault, valkey: Valkey, program: Start, folder: Path, tmp_path: Path
) -> None:
    trace, deadline = folder / "trace", deadline_of(fault)
    with Proxy([valkey.path]) as proxy:
        stage = Stage(valkey, proxy, folder, deadline)
        url, variables = f"redis://127.0.0.1:{proxy.port}", recorded(tmp_path, trace)
        server = start(program, url, deadline, **variables)
        with driven(server) as load:
            well = load.now
            with fault.inject(stage):
                begun = load.now
                time.sleep(fault.seconds)
                if fault.counter_off:
                    wait_until(load.uncounted)
                    off = min(visit.end for visit in load.uncounted())
                    wait_until(lambda: len(at_once(load, off)) >= 100)
                ended = load.now
            load.wait_counted(load.now)
        report = load.report()

        assert report.failed == 0, report.as_text()
        assert load.latencies()[-1] < deadline + BUSY
        counter = valkey.counter()
        assert counter is not None
        assert counter <= report.made
        if fault.restarts:
            assert_none_twice(numbers(load, since=begun))
        else:
            seen = assert_exact(valkey.client, [server], numbers(load))
            assert check(Trace(trace).events(), shown=seen.elements())
        uncounted = load.uncounted()
        assert fault.counter_off in (None, bool(uncounted))
        if uncounted:
            first = min(visit.end for visit in uncounted)
            assert first > well
            pages = [visit for visit in load.visits if first < visit.at < ended]
            if pages:  # the counter may have gone off as the fault ended
                assert_nobody_waited(load, pages, deadline)


#: What is done to a crowd: how often, for how many seconds.
CROWD = {
    "connections reset every 50 ms": (1, 2.0),
    "hung": (1, 2.2),
    "killed and restarted": (2, 1.2),
    "replies swallowed": (1, 1.5),
    "copies of commands 500 ms late": (1, 2.0),
    "commands after the deadline": (1, 1.2),
    "scripts forgotten every 20 ms": (1, 1.2),
}


@pytest.mark.parametrize("name", CROWD, ids=[name.replace(" ", "-") for name in CROWD])
def test_a_crowd_that_comes_back_as_soon_as_it_is_answered_is_shown_each_number_once(
    name: str, valkey: Valkey, program: Start, folder: Path
) -> None:
    (times, seconds), fault = CROWD[name], FAULTS[name]
    deadline = deadline_of(fault)
    with Proxy([valkey.path]) as proxy:
        stage = Stage(valkey, proxy, folder, deadline)
        server = start(program, f"redis://127.0.0.1:{proxy.port}", deadline)
        with driven(server, rate=None) as load:
            for _ in range(times):
                with fault.inject(stage):
                    load.wait(seconds)
                load.wait_counted(load.now)
            load.wait(0.5)
        report = load.report()
        assert report.failed == 0, report.as_text()
        assert load.latencies()[-1] < deadline + BUSY
        assert bool(report.uncounted) is fault.counter_off, report.as_text()
        seen = assert_exact(valkey.client, [server], numbers(load))
    print(f"{name}: {report.uncounted:,} of {report.made:,} pages without a number")
    print(f"{name}: {report.number_missing:,} numbers were shown in the quiet after it")
    print(f"{name}: {valkey.counter():,} numbers, {seen.total():,} shown")
