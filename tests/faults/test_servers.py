"""Several servers on one Redis, and servers that stop: each number is shown once."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.faults.test_redis_faults import FAULTS, LONG_DEADLINE, Stage, repeatedly, start
from tests.support.driven import driven
from tests.support.exact import assert_all_counted, assert_exact, numbers
from tests.support.ports import held_port
from tests.support.processes import SOON, kill_group, seconds_to_stop
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[Proxy]:
    with Proxy([valkey.path]) as proxy:
        yield proxy


def url_of(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


# What turns the counters of servers off while tokens are under way.
@pytest.mark.parametrize(
    "name", ["refused", "hung", "killed and restarted twice", "replies swallowed"]
)
def test_servers_give_each_others_numbers_that_nobody_was_shown(
    name: str, valkey: Valkey, proxy: Proxy, program: Start, folder: Path
) -> None:
    fault = FAULTS[name]
    with contextlib.ExitStack() as stack:
        servers = [start(program, url_of(proxy), fault.deadline) for _ in range(3)]
        loads = [stack.enter_context(driven(server)) for server in servers]
        with fault.inject(Stage(valkey, proxy, folder)):
            wait_until(lambda: all(load.uncounted() for load in loads))
        for load in loads:
            load.wait_counted(load.now)
    assert sum(load.report().failed for load in loads) == 0
    assert_exact(valkey.client, servers, [one for load in loads for one in numbers(load)])


#: Seconds between two looks of the balancer, and those that a server leaves it: more than twice as
#: many, as the machine may be busy.
HEARS_LATE, DRAIN_DELAY = 2.0, 5


def is_ready(port: int) -> bool:
    client = HTTPConnection("127.0.0.1", port, PATIENCE)
    with contextlib.suppress(OSError), contextlib.closing(client):
        client.request("GET", "/readyz")
        return client.getresponse().status == 200
    return False


@pytest.mark.parametrize("keep_alive", [False, True], ids=["new connections", "kept connections"])
def test_a_rolling_restart_behind_a_balancer_that_hears_late_while_redis_is_cut_off_loses_nothing(
    keep_alive: bool, valkey: Valkey, proxy: Proxy, counting: Start
) -> None:
    flags = f"--redis-url={url_of(proxy)}", f"--redis-timeout={LONG_DEADLINE}"

    def started(processes: int) -> Program:
        own = f"--port={places[processes]}", f"--processes={processes + 1}"
        return counting(*flags, *own, f"--drain-delay={DRAIN_DELAY}", "--access-log=false")

    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(held_port()) for _ in range(2)]
        places = [one.getsockname()[1] for one in held]
        servers = [started(0), started(1)]
        balancer = stack.enter_context(Proxy(places))

        def look() -> None:
            balancer.targets = [port for port in places if is_ready(port)]

        stack.enter_context(repeatedly(look, HEARS_LATE))
        url = f"http://127.0.0.1:{balancer.port}"
        load = stack.enter_context(driven(url, rate=300, keep_alive=keep_alive))
        for turn, old in enumerate(servers):
            old.signal()
            with repeatedly(lambda: proxy.cut(reset=True), seconds=0.2):
                assert old.wait() == 0
            servers[turn] = started(turn)
            wait_until(lambda: balancer.targets == places)
        stack.close()
    assert balancer.refused == 0, "it may have no second try"
    assert_all_counted(load)
    assert_exact(valkey.client, servers, numbers(load))


MAY_BE_MISSING = b"numbers that were shown to nobody may be missing"


def swallow_reply(proxy: Proxy, server: Program) -> None:
    """Have a visit counted, and shown to nobody; what follows does not reach Redis."""
    reached: list[bytes] = []

    def only_the_visit(packet: bytes) -> bytes:
        reached.append(packet)
        return packet if len(reached) == 1 else b""

    proxy.to_client.black_hole = True
    proxy.to_target.change = only_the_visit
    assert server.visits() is None


def test_a_server_that_cannot_hand_its_numbers_on_says_so_and_stops_in_time(
    valkey: Valkey, proxy: Proxy, program: Start
) -> None:
    server = start(program, url_of(proxy), 1)
    assert wait_until(server.visits) == 1
    swallow_reply(proxy, server)
    valkey.hang()
    assert seconds_to_stop(server) < SOON
    assert server.log.count(MAY_BE_MISSING) == 1


def test_a_server_whose_connection_is_cut_as_it_hands_on_tries_again(
    valkey: Valkey, proxy: Proxy, program: Start
) -> None:
    staying, leaving = start(program, valkey.url, 1), start(program, url_of(proxy), 1)
    assert wait_until(leaving.visits) == 1
    swallow_reply(proxy, leaving)
    cut: list[bool] = []  # whether it was told to stop

    def cut_the_end(packet: bytes) -> bytes:
        cut.append(told.is_set())
        if cut.count(True) <= 3:  # a look for Redis meanwhile sends two
            raise ConnectionResetError
        return packet

    told = threading.Event()
    proxy.to_target.change = cut_the_end
    proxy.to_client.heal()
    told.set()
    assert seconds_to_stop(leaving) < SOON
    assert MAY_BE_MISSING not in leaving.log
    assert_exact(valkey.client, [staying], [1])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_stops_says_so_at_once_and_at_the_end_and_one_that_is_killed_says_nothing(
    processes: int, valkey: Valkey, counting: Start
) -> None:
    said: list[bytes] = []

    def states() -> list[bytes]:
        keys = valkey.client.keys("*:process:*")
        return sorted(valkey.client.hget(key, "state") or b"" for key in keys)

    def leave(delay: int, state: bytes, how: Callable[[Program], object]) -> None:
        flags = f"--processes={processes}", f"--drain-delay={delay}"
        server = counting(f"--redis-url={valkey.url}", *flags)
        known, of = len(said) + processes, "{counter}:processes"
        wait_until(lambda: server.visits() and valkey.client.zcard(of) == known)
        how(server)
        said.extend([state] * processes)
        wait_until(lambda: states() == said)

    if processes == 1:  # else its workers see it, and say goodbye
        leave(0, b"", lambda server: kill_group(server.process))
    leave(60, b"draining", Program.signal)
    leave(0, b"gone", seconds_to_stop)
