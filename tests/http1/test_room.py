"""Those idle longest make room for others, and others wait."""

import asyncio
import errno
import os
import socket

import pytest

from http1.acceptor import LOOK_AGAIN
from tests.support import Caplog, Patch
from tests.support.served import GET, WAITING, Client, Serve, Served, two_sides
from tests.support.waiting import PATIENCE, eventually

#: Requests that take far longer to answer than it takes until room is made.
MANY = 100_000


async def idle(served: Served) -> Client:
    """A client that was answered, a while later than the one before."""
    client = await served.connect()
    assert (await client.ask(GET)).status == 200
    await asyncio.sleep(0.01)  # it is time that makes an order
    return client


async def busy(served: Served) -> Client:
    """A client that waits for its answer."""
    client = (await served.connect()).send(WAITING)
    await eventually(lambda: served.state.begun)
    return client


async def is_answered(served: Served, *clients: Client) -> None:
    served.state.go_on.set()
    for client in clients:
        assert (await client.answer()).body == b"at last"


def no_room(connections: int, why: str = "") -> str:
    return (
        f"no room beside {connections} connections{why}: those idle longest are closed; "
        "when none is idle, new ones wait"
    )


async def test_those_idle_longest_make_room_and_nobody_else(serve: Serve, caplog: Caplog) -> None:
    served = serve(max_connections=5)
    waiting = await busy(served)
    half, silent = [await served.connect() for _ in range(2)]
    half.send(GET[:9])
    first, second = await idle(served), await idle(served)
    assert not caplog.records
    third = await idle(served)  # for whom there is no room
    assert await silent.rest() == b""
    assert (await first.ask(GET)).status == 200  # so it is not the next
    await asyncio.sleep(0.01)
    fourth = await idle(served)
    assert await second.rest() == b""
    fifth = await idle(served)
    assert await third.rest() == b""
    for client in (first, fourth, fifth):
        assert (await client.ask(GET)).status == 200
    assert (await half.ask(GET[9:])).status == 200
    await is_answered(served, waiting)
    assert [record.message for record in caplog.records] == [no_room(5)]


@pytest.mark.parametrize("look_again", [LOOK_AGAIN, PATIENCE])  # the end of one is not waited for
async def test_without_idle_ones_new_ones_wait_for_room_or_no_more_listening(
    serve: Serve, monkeypatch: Patch, look_again: float
) -> None:
    monkeypatch.setattr("http1.acceptor.LOOK_AGAIN", look_again)
    served = serve(max_connections=2)
    clients = [(await served.connect()).send(WAITING) for _ in range(5)]
    begun = served.state.begun
    await eventually(lambda: len(begun) == 2)
    await asyncio.sleep(0.25)  # in which it is looked for room
    assert (served.server.connections, len(begun)) == (2, 2)
    clients.pop(0).reset()
    await eventually(lambda: len(begun) == 3)
    served.server.stop()
    await is_answered(served, *clients)


async def test_client_that_has_just_come_may_ask_before_it_makes_room(serve: Serve) -> None:
    served = serve(max_connections=1)
    first = await served.connect()
    await eventually(lambda: served.server.connections)
    second = (await served.connect()).send(GET)
    await eventually(lambda: served.server._acceptor.is_waiting)
    assert (await first.ask(GET)).status == 200
    assert (await second.answer()).status == 200
    assert await first.rest() == b""


async def test_client_that_sends_ahead_makes_room_between_two_requests(serve: Serve) -> None:
    served = serve(max_connections=2)
    waiting = (await busy(served)).send(GET)
    ahead = (await served.connect()).send(GET * MANY)
    late = (await served.connect()).send(GET)
    rest = await ahead.rest()
    ahead.close()
    assert (await late.answer()).status == 200
    assert 0 < rest.count(b"HTTP/1.1 200 OK\r\n") < MANY
    assert rest.endswith(b"}"), "what is answered arrives whole"
    await is_answered(served, waiting)
    assert (await waiting.answer()).status == 200


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
async def test_when_descriptors_run_out_the_server_accepts_again_by_itself(
    error: int, serve: Serve, monkeypatch: Patch, caplog: Caplog
) -> None:
    served, accept = serve(), socket.socket.accept
    waiting = await busy(served)  # who does not go, and so makes no room
    errors = [OSError(error, os.strerror(error))]

    def fail_once(listening: socket.socket) -> tuple[socket.socket, object]:
        if errors:
            raise errors.pop()
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", fail_once)
    assert (await served.ask(GET)).status == 200
    assert [record.message for record in caplog.records] == [no_room(1, f" ({os.strerror(error)})")]
    await is_answered(served, waiting)


async def test_request_that_has_arrived_and_is_not_read_keeps_its_connection_but_no_other(
    serve: Serve, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("http1.server.LEAST_STALLED", 0.1)
    served = serve()
    half = (await served.connect()).send(GET[:9])
    await served.seen()
    *asking, silent = [await idle(served) for _ in range(3)]
    for goes in silent, half:
        await asyncio.sleep(0.2)  # for so long nobody has to go
        for client in asking:
            os.write(client.writer.get_extra_info("socket").fileno(), GET)
        served.server.make_room()  # before anything turns that reads
        for client in asking:
            assert (await client.answer()).status == 200
        assert await goes.rest() == b""


async def test_handshake_that_is_not_begun_makes_room(serve_tls: Serve) -> None:
    served = serve_tls(max_connections=1)
    silent = await served.connect(in_clear=True)
    await eventually(lambda: served.server.connections)
    await asyncio.sleep(0.01)
    for _ in range(3):
        client = await idle(served)
        assert await silent.rest() == b""
        silent = client


async def test_a_client_is_idle_from_the_end_of_its_handshake(serve_tls: Serve) -> None:
    served = serve_tls()
    client = await served.connect(in_clear=True)
    await eventually(lambda: served.server.connections)
    begun = asyncio.get_running_loop().time()
    await client.writer.start_tls(two_sides().client, server_hostname="localhost")
    [connection] = served.server._open
    await eventually(lambda: connection.transport)
    assert connection.waits_since >= begun


async def test_full_server_leaves_the_clients_of_its_siblings_to_them(serve: Serve) -> None:
    served, sibling = serve(max_connections=2), serve()
    sibling.server._acceptor._listen_for(0)  # it hangs
    looking = asyncio.ensure_future(
        served.server.accept_for_siblings([sibling.server.listening_sockets[0].dup()])
    )
    for _ in range(2):
        (await served.connect()).send(WAITING)
    await eventually(lambda: len(served.state.begun) == 2)
    (await sibling.connect()).send(GET)
    await asyncio.sleep(0.25)  # in which it looks
    assert served.server.connections == 2
    looking.cancel()
