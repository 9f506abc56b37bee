"""Everything that Redis and the network to it do wrong, and what the visitors see meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from audit.load import Visit
from tests.support.driven import BUSY, Driven, driven
from tests.support.exact import assert_exact, assert_none_twice, numbers
from tests.support.nodes import Node
from tests.support.ports import held_port
from tests.support.processes import seconds_to_stop
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.replayed import check
from tests.support.traces import Trace, recorded
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: Seconds that a visit may wait, where no deadline is to pass.
NO_HURRY = 60

#: Milliseconds that Valkey gets to fail over.
FAILOVER = int(PATIENCE * 1000)


@dataclass
class Stage:
    """What a fault is done to: the Valkey, and the proxy before it."""

    valkey: Valkey
    proxy: Proxy
    folder: Path
    deadline: float


@contextlib.contextmanager
def line(stage: Stage, **set_to: object) -> Iterator[None]:
    """Set what the line to the server does."""
    for name, value in set_to.items():
        setattr(stage.proxy.to_client, name, value)
    yield
    stage.proxy.heal()


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
def configured(stage: Stage, name: str, value: str, healthy: str) -> Iterator[None]:
    stage.valkey.client.config_set(name, value)
    yield
    stage.valkey.client.config_set(name, healthy)


@contextlib.contextmanager
def refused(stage: Stage) -> Iterator[None]:
    stage.proxy.refuse()
    yield
    stage.proxy.listen()


def full_backlog(stage: Stage) -> AbstractContextManager[None]:
    return stage.proxy.full_backlog()


@contextlib.contextmanager
def black_hole(stage: Stage) -> Iterator[None]:
    stage.proxy.to_target.black_hole = True
    yield
    stage.proxy.heal()
    stage.proxy.cut()  # what was lost stays so


@contextlib.contextmanager
def swallowed(stage: Stage) -> Iterator[None]:
    with line(stage, black_hole=True):
        yield
    stage.proxy.cut()


@contextlib.contextmanager
def dead(stage: Stage) -> Iterator[None]:
    with stage.proxy.lost():
        pass
    yield


@contextlib.contextmanager
def hung(stage: Stage) -> Iterator[None]:
    stage.valkey.hang()
    yield
    stage.valkey.go_on()


@contextlib.contextmanager
def killed(stage: Stage) -> Iterator[None]:
    stage.valkey.kill()
    yield
    stage.valkey.start()


@contextlib.contextmanager
def emptied(stage: Stage) -> Iterator[None]:
    stage.valkey.kill()
    yield
    stage.valkey.start(appendonly="no")  # its append-only file stays unread


@contextlib.contextmanager
def flushed(stage: Stage) -> Iterator[None]:
    stage.valkey.client.flushall()
    yield


def scripts_flushed(stage: Stage) -> AbstractContextManager[None]:
    return repeatedly(stage.valkey.client.script_flush, seconds=0.02)


@contextlib.contextmanager
def killed_twice(stage: Stage) -> Iterator[None]:
    with killed(stage):
        pass
    with killed(stage):
        yield


def clients_killed(stage: Stage) -> AbstractContextManager[None]:
    kill = stage.valkey.client.client_kill_filter
    return repeatedly(lambda: kill(_type="normal", skipme=True))


@contextlib.contextmanager
def paused(stage: Stage) -> Iterator[None]:
    stage.valkey.client.client_pause(2000)  # its end is the fault's
    yield
    stage.valkey.client.ping()


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
def password_changed(stage: Stage) -> Iterator[None]:
    with configured(stage, "requirepass", "secret", ""):
        stage.proxy.cut()
        yield


def memory_full(stage: Stage) -> AbstractContextManager[None]:
    return configured(stage, "maxmemory", "1", "0")


@contextlib.contextmanager
def made_replica(stage: Stage) -> Iterator[None]:
    stage.valkey.client.replicaof("127.0.0.1", 1)
    yield
    stage.valkey.client.replicaof("NO", "ONE")


def slow_by(seconds: float) -> Callable[[Stage], AbstractContextManager[None]]:
    return lambda stage: line(stage, delay=seconds)


def later_than_the_deadline(stage: Stage) -> AbstractContextManager[None]:
    return line(stage, delay=stage.deadline + 0.3)


def cut_in_the_middle(stage: Stage) -> AbstractContextManager[None]:
    return line(stage, cut_after=2)


def corrupted(stage: Stage) -> AbstractContextManager[None]:
    return line(stage, change=lambda data: data.replace(b":", b"?"))


def dripping(stage: Stage) -> AbstractContextManager[None]:
    return line(stage, drip=stage.deadline / 3)


@contextlib.contextmanager
def stalled(stage: Stage) -> Iterator[None]:
    with line(stage, delay=3600):
        yield
    stage.proxy.cut()


@contextlib.contextmanager
def late_copies(stage: Stage) -> Iterator[None]:
    """Cut connections off, and deliver what was sent on them when it has been sent again."""
    to_redis = stage.proxy.to_target

    def begin_or_end() -> None:
        to_redis.late = 0.0 if to_redis.late else 0.5

    with repeatedly(begin_or_end):
        yield
    stage.proxy.heal()


@contextlib.contextmanager
def later_than_given_up(stage: Stage) -> Iterator[None]:
    """Deliver what is sent when its sender has given it up, and Redis has others' again."""
    stage.proxy.to_target.delay = stage.deadline + 0.3
    yield
    stage.proxy.heal()


def reset(stage: Stage) -> AbstractContextManager[None]:
    return repeatedly(lambda: stage.proxy.cut(reset=True))


def half_closed(stage: Stage) -> AbstractContextManager[None]:
    return repeatedly(stage.proxy.half_close)


@dataclass(frozen=True)
class Fault:
    """A row: what is injected, for how long, what the visitor sees, what the counter may do."""

    inject: Callable[[Stage], AbstractContextManager[None]]
    #: How long it lasts at least: until the server has looked for Redis more than once.
    seconds: float = 1.2
    #: The visitors see the fallback page, or go on seeing numbers; None where it may be both.
    counter_off: bool | None = True
    #: The counter may begin anew.
    restarts: bool = False
    deadline: float = 1.0


FAULTS = {
    # name: what is injected, and what differs from a page that shows the fallback at once.
    "refused": Fault(refused),
    "black hole on connect": Fault(full_backlog),
    "black hole after connect": Fault(black_hole),
    "dead and nobody told": Fault(dead, seconds=3, counter_off=False, deadline=10),
    "hung": Fault(hung, seconds=3),
    "killed and restarted": Fault(killed),
    "killed and restarted twice": Fault(killed_twice),
    "restarted empty": Fault(emptied, restarts=True),
    "every client killed every 50 ms": Fault(clients_killed, counter_off=False),
    "paused": Fault(paused),
    "failed over and back": Fault(failed_over),
    "password changed": Fault(password_changed),
    "memory full": Fault(memory_full),
    "turned into a replica": Fault(made_replica),
    # A visit may wait for two replies, and on a busy machine for more: far from the deadline.
    "replies 50 ms late": Fault(slow_by(0.05), counter_off=False, deadline=10),
    "replies 500 ms late": Fault(slow_by(0.5), counter_off=False, deadline=10, seconds=3),
    "replies 1.9 s late": Fault(slow_by(1.9), deadline=2, seconds=5),
    "replies after the deadline": Fault(later_than_the_deadline, seconds=3),
    "replies cut in the middle": Fault(cut_in_the_middle),
    "replies corrupted": Fault(corrupted),
    "replies byte by byte": Fault(dripping, seconds=2.5),
    "replies stalled": Fault(stalled),
    "replies swallowed": Fault(swallowed, seconds=1.5),
    "commands after the deadline": Fault(later_than_given_up),
    "copies of commands 500 ms late": Fault(late_copies, seconds=4, counter_off=False),
    "scripts forgotten every 20 ms": Fault(scripts_flushed, counter_off=False),
    "data forgotten": Fault(flushed, counter_off=False, restarts=True),
    "connections reset every 50 ms": Fault(reset, seconds=4, counter_off=False),
    "connections half-closed every 50 ms": Fault(half_closed, counter_off=False),
}


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
    trace = folder / "trace"
    with Proxy([valkey.path]) as proxy:
        stage = Stage(valkey, proxy, folder, fault.deadline)
        url, variables = f"redis://127.0.0.1:{proxy.port}", recorded(tmp_path, trace)
        server = start(program, url, fault.deadline, **variables)
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
        assert load.latencies()[-1] < fault.deadline + BUSY
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
                assert_nobody_waited(load, pages, fault.deadline)


def test_a_visit_whose_reply_was_lost_gets_its_number_over_the_next_connection(
    valkey: Valkey, program: Start
) -> None:
    with Proxy([valkey.path]) as proxy, ThreadPoolExecutor() as pool:
        server = start(program, f"redis://127.0.0.1:{proxy.port}", NO_HURRY)
        for made in range(1, 6):
            before = proxy.accepted
            proxy.to_client.cut_after = 0 if made % 2 else 2
            number = pool.submit(server.visits)
            wait_until(lambda before=before: proxy.accepted > before + 3)  # type: ignore[misc]
            proxy.heal()
            assert number.result() == made
            assert valkey.counter() == made


def test_a_number_whose_reply_came_in_no_time_goes_to_the_next_visit(
    valkey: Valkey, program: Start
) -> None:
    with Proxy([valkey.path]) as proxy:
        server = start(program, f"redis://127.0.0.1:{proxy.port}", 1)
        assert server.visits() == 1
        for made in range(2, 5):
            proxy.to_client.cut_after = 0
            assert server.visits() is None
            assert valkey.counter() == made
            proxy.heal()
            wait_until(lambda: '"up"' in server.get("/readyz")[1])
            assert server.visits() == made


def test_a_redis_that_hangs_for_good_costs_one_deadline_and_stopping_is_quick(
    valkey: Valkey, program: Start
) -> None:
    deadline = 1
    server = start(program, valkey.url, deadline)
    with driven(server) as load:
        valkey.hang()
        wait_until(load.uncounted)
        off = min(visit.end for visit in load.uncounted())
        time.sleep(2.5 * deadline)  # in which nobody may wait
        wait_until(lambda: len(at_once(load, off)) >= 100)
    assert load.report().failed == 0
    assert load.latencies()[-1] < deadline + BUSY
    later = at_once(load, off)
    assert load.latencies(later)[-1] < deadline / 2
    assert_nobody_waited(load, later, deadline)
    assert seconds_to_stop(server) < 1


def test_a_name_that_does_not_resolve_costs_nobody_any_time(program: Start) -> None:
    # The resolver is to give up soon, where it has nobody to ask (resolv.conf(5)).
    server = program(
        "--redis-url=redis://no-such-host.invalid.",
        "--redis-timeout=10",
        "--access-log=false",
        RES_OPTIONS="timeout:1 attempts:1",
    )
    server.wait_for(b"counter off")
    with driven(server) as load:
        wait_until(lambda: len(load.visits) >= 200)
    report = load.report()
    assert (report.failed, report.counted) == (0, 0)
    assert_nobody_waited(load, load.visits, deadline=10)
