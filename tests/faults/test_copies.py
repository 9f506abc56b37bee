"""Copies of commands that Redis gets again, or late: the counter does not move."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from counter import KEY
from counter.connection import packed
from counter.delivery import Delivery
from tests.faults.test_redis_faults import NO_HURRY, Stage, failed_over, start
from tests.support.driven import driven
from tests.support.exact import assert_exact, numbers
from tests.support.nodes import Node
from tests.support.program import Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until


class Recorded:
    """A server, and a proxy that keeps every packet that it sends to Redis."""

    def __init__(self, valkey: Valkey, program: Start, folder: Path, proxy: Proxy) -> None:
        self.packets: list[bytes] = []
        proxy.to_target.change = self._keep
        self.valkey = valkey
        self.stage = Stage(valkey, proxy, folder, NO_HURRY)
        self.server = start(program, f"redis://127.0.0.1:{proxy.port}", NO_HURRY)

    def _keep(self, packet: bytes) -> bytes:
        self.packets.append(packet)
        return packet


@pytest.fixture
def recorded(valkey: Valkey, program: Start, folder: Path) -> Iterator[Recorded]:
    with Proxy([valkey.path]) as proxy:
        yield Recorded(valkey, program, folder, proxy)


def deliver(packet: bytes, client: socket.socket, replies: int = 1) -> bytes:
    """Send Redis a packet, and return the replies, a line each."""
    with client:
        client.settimeout(PATIENCE)
        client.sendall(packet)
        read = b""
        while read.count(b"\r\n") < replies:
            more = client.recv(65536)
            assert more, read
            read += more
        return read


def deliver_to(valkey: Valkey, packet: bytes) -> bytes:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(valkey.path))
    return deliver(packet, client)


def test_copies_that_come_in_any_order_under_load_and_after_a_reconnection_change_nothing(
    recorded: Recorded,
) -> None:
    with driven(recorded.server) as load:
        wait_until(lambda: len(load.visits) >= 300)
        recorded.stage.proxy.cut()
        for packet in recorded.packets[::-1][:100] + recorded.packets[:100]:
            deliver_to(recorded.valkey, packet)
        reached = load.now
        wait_until(lambda: len(load.counted_since(reached)) >= 100)
    assert load.uncounted() == []
    assert_exact(recorded.valkey.client, [recorded.server], numbers(load))


def test_a_copy_that_comes_after_a_failover_changes_nothing_on_the_new_primary(
    recorded: Recorded,
) -> None:
    server = recorded.server
    assert [server.visits() for _ in range(3)] == [1, 2, 3]
    in_full = next(packet for packet in recorded.packets if b"$4\r\nEVAL\r\n" in packet)
    with failed_over(recorded.stage):
        new = Node.started[-1]
        copies = [in_full, *recorded.packets]  # the first one brings the script along
        for packet in copies:
            reply = deliver(packet, socket.create_connection(("127.0.0.1", new.port)))
            assert not reply.startswith(b"-")
            assert new.client.get("counter") == b"3"
    for packet in copies:
        deliver_to(recorded.valkey, packet)
        assert recorded.valkey.counter() == 3
    wait_until(lambda: '"up"' in server.get("/readyz")[1])
    assert_exact(recorded.valkey.client, [server], [1, 2, 3])


def test_a_copy_of_a_token_waits_for_the_replicas_as_the_first_one_does(folder: Path) -> None:
    primary, replica = Node(folder), Node(folder)
    for node in (primary, replica):
        node.start()
    replica.follow(primary)
    wait_until(primary.replicas_in_step)
    request = Delivery(KEY).request(1)
    wait = packed("WAIT", 1, 200)

    def sent(command: bytes) -> list[bytes]:
        client = socket.create_connection(("127.0.0.1", primary.port))
        return deliver(command + request.arguments + wait, client, replies=2).split()

    replica.hang()
    try:
        assert sent(request.in_full) == [b":1", b":0"]
        state = [b"+1", b"1", b"1"]  # the token, its last number, how many
        assert sent(request.command) == [*state, b":0"], "no replica has it yet"
    finally:
        replica.go_on()
    wait_until(lambda: sent(request.command)[-1] == b":1")
    assert primary.client.get("counter") == b"1"
