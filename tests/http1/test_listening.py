"""Where the server listens, and how it ends."""

import asyncio
import contextlib
import gc
import ipaddress
import socket
from pathlib import Path

import pytest
from tornado.netutil import bind_unix_socket

from tests.support import Patch
from tests.support.served import CLOSE, GET, WAITING, Client, Serve, get
from tests.support.waiting import PATIENCE, eventually

EVERYBODY = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


@pytest.mark.parametrize("options", [{}, {"trusted_proxies": EVERYBODY}], ids=["", "proxies"])
async def test_unix_socket_is_served_without_an_address(
    options: dict, serve: Serve, folder: Path
) -> None:
    served = serve(**options)
    served.server.add_socket(bind_unix_socket(str(folder / "http.sock")))
    reader, writer = await asyncio.open_unix_connection(str(folder / "http.sock"))
    with contextlib.closing(writer):
        client = Client(reader, writer).send(GET + get("/", "X-Forwarded-For: 4.4.4.4") + CLOSE)
        for _ in range(3):
            assert (await client.answer()).json["ip"] == "unix"
        assert await client.rest() == b""


async def test_server_listens_until_it_is_stopped_and_answers_who_came_before(serve: Serve) -> None:
    served = serve()
    served.server.listen(0, "127.0.0.1")
    served.port = served.server.listening_sockets[1].getsockname()[1]
    client = await served.connect()
    queued = socket.create_connection(("127.0.0.1", served.port))  # the loop has not turned
    served.server.stop()
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    for one in client, await served.connect(sock=queued):
        assert (await one.ask(GET)).status == 200


async def test_every_connection_is_closed_whatever_is_under_way(serve: Serve) -> None:
    served = serve()
    clients = [await served.connect() for _ in range(4)]
    for client, sent in zip(clients, [b"", GET[:9], WAITING, get("/pieces")], strict=True):
        client.send(sent)
    await eventually(lambda: len(served.state.begun) == 2)
    await served.server.close_all_connections()
    for client in clients:
        assert b"0\r\n\r\n" not in (await client.rest())[-5:]
    assert served.state.left == 2


async def test_a_request_that_is_late_or_has_arrived_in_part_is_answered_while_the_server_ends(
    serve_either: Serve, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("http1.server.DRAIN_PAUSE", 0)
    monkeypatch.setattr("http1.server.FIRST_REQUEST", PATIENCE)
    served = serve_either()
    late = socket.create_connection(("127.0.0.1", served.port))
    await eventually(lambda: served.server.connections)
    kept = await served.connect()
    assert (await kept.ask(GET)).status == 200
    half = (await served.connect()).send(GET[:9])
    await served.seen()
    [listening] = served.server.listening_sockets
    draining = asyncio.ensure_future(served.server.drain(60))
    await eventually(lambda: listening.fileno() == -1)
    client = await served.connect(sock=late)
    assert (await client.ask(GET)).headers["connection"] == "close"
    client.close()
    assert await kept.rest() == b""
    assert (await half.ask(GET[9:])).headers["connection"] == "close"
    await draining


async def test_a_request_that_the_loop_has_not_read_is_no_idle_connection(serve: Serve) -> None:
    served = serve()
    client = await served.connect()
    assert (await client.ask(GET)).status == 200
    [connection] = served.server._open
    client.send(GET)  # the loop does not turn
    connection.close_if_idle()
    assert (await client.answer()).status == 200
    connection.close_if_idle()
    assert await client.rest() == b""


async def test_one_accepted_as_all_close_is_closed_too(serve: Serve, monkeypatch: Patch) -> None:
    served = serve()
    left: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: left.append(what.exc_value))
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # in the queue: the loop has not turned
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        served.server.stop()
        await served.server.close_all_connections()
        assert not served.server.connections
        await asyncio.sleep(0)
        gc.collect()
        assert not left
