"""Where the server listens, and how it ends."""

import asyncio
import contextlib
import gc
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.netutil import bind_sockets, bind_unix_socket

from http1 import HTTPServer
from tests.support.served import (
    CLOSE,
    GET,
    WAITING,
    Client,
    Contexts,
    Serve,
    get,
    two_sides,
)
from tests.support.waiting import PATIENCE, eventually

EVERYBODY = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


@pytest.mark.parametrize("options", [{}, {"trusted_proxies": EVERYBODY}], ids=["", "proxies"])
async def test_unix_socket_is_served_and_no_address_is_made_up_for_it(
    options: dict[str, Any], serve: Serve, folder: Path
) -> None:
    served = serve(**options)
    served.server.add_socket(bind_unix_socket(str(folder / "http.sock")))
    reader, writer = await asyncio.open_unix_connection(str(folder / "http.sock"))
    with contextlib.closing(writer):
        client = Client(reader, writer).send(GET + get("/", "X-Forwarded-For: 4.4.4.4") + CLOSE)
        for _ in range(3):
            assert (await client.answer()).json["ip"] == "unix"
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "start",
    [
        lambda server: server.listen(0, "127.0.0.1"),
        lambda server: (server.bind(0, "127.0.0.1"), server.start()),
        lambda server: server.add_sockets(bind_sockets(0, "127.0.0.1")),
    ],
    ids=["listen", "bind and start", "add_sockets"],
)
@pytest.mark.filterwarnings("ignore:.*bind.* deprecated:DeprecationWarning")
async def test_server_listens_until_it_is_stopped(
    start: Callable[[HTTPServer], object], serve: Serve
) -> None:
    served = serve()
    before = served.server.listening_sockets
    start(served.server)
    [listening] = [one for one in served.server.listening_sockets if one not in before]
    served.port = listening.getsockname()[1]
    client = await served.connect()
    assert (await client.ask(GET)).status == 200
    served.server.stop()
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    assert (await client.ask(GET)).status == 200  # what is open is not closed


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


@pytest.mark.parametrize("drains", [False, True])
async def test_who_came_before_listening_ended_is_answered(
    drains: bool, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http1.server.DRAIN_PAUSE", 1.0)  # room for a busy machine
    served = serve()
    if drains:  # the connection that was accepted last
        draining = asyncio.ensure_future(served.server.drain(60))
        [listening] = served.server.listening_sockets
        client = await served.connect()
        await eventually(lambda: listening.fileno() == -1)
    else:  # a client in the queue
        queued = socket.create_connection(("127.0.0.1", served.port))  # the loop has not turned
        served.server.stop()
        client = Client(*await asyncio.open_connection(sock=queued))
    assert (await client.ask(GET)).status == 200
    client.close()
    if drains:
        await draining


@pytest.mark.parametrize("tls", [None, two_sides()], ids=["", "TLS"])
async def test_a_request_that_is_late_or_has_arrived_in_part_is_answered_while_the_server_ends(
    tls: Contexts | None, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http1.server.DRAIN_PAUSE", 0)
    monkeypatch.setattr("http1.server.FIRST_REQUEST", PATIENCE)
    served = serve(tls=tls)
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        await eventually(lambda: served.server.connections)
        kept = await served.connect()
        assert (await kept.ask(GET)).status == 200
        half = (await served.connect()).send(GET[:9])
        await served.seen()
        [listening] = served.server.listening_sockets
        draining = asyncio.ensure_future(served.server.drain(60))
        await eventually(lambda: listening.fileno() == -1)
        options: dict[str, Any] = {"ssl": tls.client, "server_hostname": "localhost"} if tls else {}
        client = Client(*await asyncio.open_connection(sock=sock, **options))
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


async def test_a_connection_that_is_accepted_as_all_are_closed_is_closed_too(serve: Serve) -> None:
    served = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.connect(("127.0.0.1", served.port))  # in the queue: the loop has not turned
        left: list[object] = []
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(
            "sys.unraisablehook", lambda what: left.append(what.exc_value)
        )
        served.server.stop()
        await served.server.close_all_connections()
        assert not served.server.connections
        await asyncio.sleep(0)
        gc.collect()
        assert not left
