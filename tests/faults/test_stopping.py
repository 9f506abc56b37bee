"""Servers that stop while Redis has numbers for them that were shown to nobody."""

from collections.abc import Callable

import pytest

from tests.faults.test_redis_faults import start
from tests.support.exact import assert_exact
from tests.support.processes import SOON, seconds_to_stop
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

DEADLINE = 1

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


@pytest.mark.parametrize("act", [Valkey.hang, Valkey.kill, lambda _: None])
def test_a_server_that_cannot_hand_its_numbers_on_says_so_and_stops_in_time(
    act: Callable[[Valkey], None], valkey: Valkey, program: Start
) -> None:
    with Proxy([valkey.path]) as proxy:
        server = start(program, f"redis://127.0.0.1:{proxy.port}", DEADLINE)
        assert wait_until(server.visits) == 1
        swallow_reply(proxy, server)
        act(valkey)
        assert seconds_to_stop(server) < SOON
        assert server.log.count(MAY_BE_MISSING) == 1


def test_a_server_whose_connection_is_cut_as_it_hands_on_tries_again(
    valkey: Valkey, program: Start
) -> None:
    staying = start(program, valkey.url, DEADLINE)
    with Proxy([valkey.path]) as proxy:
        leaving = start(program, f"redis://127.0.0.1:{proxy.port}", DEADLINE)
        assert wait_until(leaving.visits) == 1
        swallow_reply(proxy, leaving)
        lost: list[bytes] = []

        def cut_twice(packet: bytes) -> bytes:
            if len(lost) < 2:
                lost.append(packet)
                raise ConnectionResetError
            return packet

        proxy.to_target.change = cut_twice
        proxy.to_client.heal()
        assert seconds_to_stop(leaving) < SOON
        assert MAY_BE_MISSING not in leaving.log
    assert_exact(valkey.client, [staying], [1])


NAMES = "{counter}:processes"


def states(valkey: Valkey) -> list[str]:
    """Return what each process says of itself."""
    return sorted(
        str(valkey.client.hget(key, "state")) for key in valkey.client.keys("*:process:*")
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_is_told_to_stop_says_so_at_once_and_at_the_end_that_it_is_gone(
    processes: int, valkey: Valkey, counting: Start
) -> None:
    said: list[str] = []

    def start(*flags: str) -> Program:
        server = counting(f"--redis-url={valkey.url}", f"--processes={processes}", *flags)
        wait_until(lambda: server.visits() and valkey.client.zcard(NAMES) == len(said) + processes)
        return server

    start("--drain-delay=60").signal()
    said += ["b'draining'"] * processes
    wait_until(lambda: states(valkey) == said)
    assert seconds_to_stop(start()) < SOON
    said += ["b'gone'"] * processes
    assert states(valkey) == said


def test_a_server_that_is_killed_says_nothing(valkey: Valkey, counting: Start) -> None:
    server = counting(f"--redis-url={valkey.url}")
    assert server.visits() == 1
    server.process.kill()
    server.process.wait()
    assert states(valkey) == ["None"]
