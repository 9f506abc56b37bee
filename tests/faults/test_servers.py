"""Several servers on one Redis, to which their connections are cut: each number is shown once."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_redis_faults import FAULTS, LONG_DEADLINE, Stage, repeatedly
from tests.support import ROOT
from tests.support.balancer import Balancer
from tests.support.driven import driven
from tests.support.exact import assert_all_counted, assert_exact, numbers
from tests.support.ports import held_port
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until


def flags(proxy: Proxy, deadline: float = LONG_DEADLINE) -> list[str]:
    return [
        f"--redis-url=redis://127.0.0.1:{proxy.port}",
        f"--redis-timeout={deadline}",
        "--access-log=false",
    ]


#: What turns the counters of servers off while tokens are under way.
TURNED_OFF = ("refused", "hung", "killed and restarted twice", "replies swallowed")


@pytest.mark.parametrize("name", TURNED_OFF, ids=[name.replace(" ", "-") for name in TURNED_OFF])
def test_servers_give_each_others_numbers_that_nobody_was_shown(
    name: str, valkey: Valkey, counting: Start, folder: Path
) -> None:
    fault = FAULTS[name]
    with Proxy([valkey.path]) as proxy, contextlib.ExitStack() as stack:
        servers = [counting(*flags(proxy, fault.deadline)) for _ in range(3)]
        loads = [stack.enter_context(driven(server)) for server in servers]
        with fault.inject(Stage(valkey, proxy, folder, fault.deadline)):
            wait_until(lambda: all(load.uncounted() for load in loads))
        for load in loads:
            load.wait_counted(load.now)
        stack.close()
        assert sum(load.report().failed for load in loads) == 0
        assert_exact(valkey.client, servers, [one for load in loads for one in numbers(load)])


@pytest.fixture
def places() -> Iterator[list[int]]:
    """Ports of three servers, which stay theirs while they are restarted."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(held_port()).getsockname()[1] for _ in range(3)]


def test_a_rolling_restart_while_connections_are_cut_shows_each_number_once(
    valkey: Valkey, counting: Start, places: list[int]
) -> None:
    with Proxy([valkey.path]) as proxy, Proxy(places) as balancer, contextlib.ExitStack() as stack:
        servers = [counting(*flags(proxy), f"--port={port}") for port in places]
        load = stack.enter_context(driven(f"http://127.0.0.1:{balancer.port}"))
        stack.enter_context(repeatedly(lambda: proxy.cut(reset=True)))
        for turn, old in enumerate(servers):
            old.signal()
            assert old.wait() == 0
            servers[turn] = counting(*flags(proxy), f"--port={places[turn]}")
            seen = len(load.visits)
            wait_until(lambda seen=seen: len(load.visits) >= seen + 60)  # type: ignore[misc]
        stack.close()
        assert_all_counted(load)
        assert_exact(valkey.client, servers, numbers(load))


#: Seconds between two looks of the balancer, and those that a server leaves it: more than twice as
#: many, as the machine may be busy.
HEARS_LATE, DRAIN_DELAY = 2.0, 5


@pytest.mark.parametrize("keep_alive", [False, True], ids=["new connections", "kept connections"])
def test_a_rolling_restart_behind_a_balancer_that_hears_late_loses_nothing(
    keep_alive: bool, valkey: Valkey, counting: Start, places: list[int]
) -> None:
    def start(port: int) -> Program:
        patient = f"--drain-delay={DRAIN_DELAY}", f"--redis-timeout={LONG_DEADLINE}"
        url = f"--redis-url={valkey.url}"
        return counting(url, "--access-log=false", f"--port={port}", *patient)

    with Balancer(places, every=HEARS_LATE, keep_alive=keep_alive) as balancer:
        servers = [start(port) for port in places]
        wait_until(lambda: balancer.ready == {*places})
        with driven(balancer.url, rate=300, keep_alive=keep_alive) as load:
            for turn, port in enumerate(places):
                servers[turn].signal()
                assert servers[turn].wait() == 0
                servers[turn] = start(port)
                wait_until(lambda port=port: port in balancer.ready)  # type: ignore[misc]
        assert_all_counted(load)
        assert_exact(valkey.client, servers, numbers(load))


def test_an_exclusive_audit_of_three_replicas_whose_connections_are_cut_holds(
    valkey: Valkey, counting: Start
) -> None:
    with Proxy([valkey.path]) as proxy:
        servers = [counting(*flags(proxy), f"--processes={number}") for number in (1, 1, 2)]
        with Proxy([server.port for server in servers]) as balancer:
            url = f"http://127.0.0.1:{balancer.port}"
            arguments = ("--exclusive", "--json", "--requests=1000", "--concurrency=32")
            with repeatedly(lambda: proxy.cut(reset=True)):
                audit = subprocess.run(
                    [sys.executable, str(ROOT / "check.py"), url, *arguments],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                )
        assert audit.returncode == 0, audit.stdout + audit.stderr
        report = json.loads(audit.stdout)
        assert report["visits"] == {"made": 1000, "counted": 1000, "uncounted": 0, "failed": 0}
        assert valkey.counter() == report["numbers"]["highest"] == 1000
