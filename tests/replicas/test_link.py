"""Nodes of a cluster between which the counter's slot moves, and a Redis that is not well."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
import redis

from counter import Connector, packed
from replicas import ElsewhereError, RefusedError
from replicas.link import Link, seconds
from tests.support.fake_redis import FakeRedis
from tests.support.waiting import PATIENCE, eventually

COMMANDS = [packed("TTL", "counter"), packed("PTTL", "counter")]


@pytest.fixture
def node(fake: FakeRedis) -> FakeRedis:
    """A node that has the slot."""
    fake.replies = {
        **{"EXISTS": b":1\r\n", "MULTI": b"+OK\r\n", "EXEC": b"*2\r\n:1\r\n:2\r\n"},
        **{"TTL": b":1\r\n", "PTTL": b":2\r\n"},
    }
    return fake


@pytest.fixture
def other(node: FakeRedis) -> Iterator[FakeRedis]:
    with FakeRedis() as fake:
        fake.replies = dict(node.replies)
        yield fake


@contextlib.contextmanager
def linked(node: FakeRedis) -> Iterator[Link]:
    one = Link(Connector(f"redis+cluster://127.0.0.1:{node.port}", key="counter", timeout=PATIENCE))
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("way", ["ask", "ask_at_once"])
async def test_a_connection_that_was_lost_is_replaced_and_a_node_that_gave_the_slot_away_left(
    node: FakeRedis, other: FakeRedis, way: str
) -> None:
    with linked(node) as link:
        ask = getattr(link, way)
        for has_reset in (0, 1, 0):  # in place of an end (socket(7), SO_LINGER)
            assert await link.within_time(lambda: ask(COMMANDS)) == [1, 2]
            assert link.is_open
            for one in node.open():
                sock = one.writer.get_extra_info("socket")
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", has_reset, 0)
                )
            node.cut()
            await eventually(lambda: not link.is_open)
        assert await link.within_time(lambda: ask(COMMANDS)) == [1, 2]
        moved = f"-MOVED 6680 127.0.0.1:{other.port}\r\n".encode()
        node.replies |= dict.fromkeys(("EXISTS", "TTL", "PTTL"), moved)
        node.replies["EXEC"] = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        other.replies |= {"TTL": b":3\r\n", "PTTL": b":4\r\n", "EXEC": b"*2\r\n:3\r\n:4\r\n"}
        assert await link.within_time(lambda: ask(COMMANDS)) == [3, 4]


@pytest.mark.parametrize("is_open", [True, False])
async def test_where_the_slot_is_still_moving_to_nothing_is_read_or_written(
    node: FakeRedis, other: FakeRedis, is_open: bool
) -> None:
    with linked(node) as link:
        if is_open:
            assert await link.within_time(lambda: link.ask(COMMANDS)) == [1, 2]
        asks = f"-ASK 6680 127.0.0.1:{other.port}\r\n".encode()
        node.replies |= dict.fromkeys(("EXISTS", "TTL", "PTTL"), asks)
        for _ in range(3):
            with pytest.raises(ElsewhereError, match="is being moved"):
                await link.within_time(lambda: link.ask(COMMANDS))
        assert not other.commands
        node.replies |= {"EXISTS": b":1\r\n", "TTL": b":1\r\n", "PTTL": b":2\r\n"}  # moved back
        assert await link.within_time(lambda: link.ask(COMMANDS)) == [1, 2]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        *(("LOADING", redis.ResponseError), ("OOM", redis.ResponseError)),
        *(("TRYAGAIN", ElsewhereError), ("ASK 6680", ElsewhereError)),
        *(("NOPERM", RefusedError), ("ERR unknown command", RefusedError)),
    ],
)
@pytest.mark.parametrize("is_inside", [True, False], ids=["in EXEC", "by itself"])
async def test_a_state_that_will_pass_is_no_refusal(
    node: FakeRedis, said: str, kind: type[redis.ResponseError], is_inside: bool
) -> None:
    error = f"-{said} for some reason\r\n".encode()
    node.replies["PTTL"] = error
    node.replies["EXEC"] = b"*2\r\n:1\r\n" + error if is_inside else b"-EXECABORT\r\n"
    with linked(node) as link:
        asking = link.within_time(lambda: link.ask_at_once(COMMANDS))
        if kind is RefusedError:
            one, found = await asking
            assert one == 1
        else:
            with pytest.raises(kind) as raised:
                await asking
            found = raised.value
    assert type(found) is kind
    assert str(found) == f"PTTL: {said.removeprefix('ERR ')} for some reason"


def test_the_time_is_read_to_the_microsecond() -> None:
    assert seconds([b"1700000000", b"250000"]) == 1_700_000_000.25
