"""Clients that read slowly, or leave: handlers know whether their client is there; nothing is left.

No garbage collector is needed for that.
"""

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from tornado import httpserver, web
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop

import http1
from http1.connection import ClientConnection
from http1.exchange import Exchange
from tests.faults.test_clients import TLS_HELLO
from tests.support import Patch
from tests.support.served import CLOSE, GET, WAITING, Client, Serve, Served, get
from tests.support.site import MUCH
from tests.support.waiting import eventually


class Waiting(http1.RequestHandler):
    """Answers when the test says so."""

    async def get(self) -> None:
        asked = self.settings["asked"]
        asked.handlers.append(self)
        await asked.go_on.wait()
        self.finish("page")

    def on_connection_close(self) -> None:
        self.settings["asked"].left += 1


class EagerWaiting(Waiting):
    EAGER_START = True


eager_or_not = pytest.mark.parametrize("handler", [Waiting, EagerWaiting])


async def asking(
    serve: Serve, handler: type, kind: Any = http1.HTTPServer, app: Any = http1.Application
) -> tuple[Client, SimpleNamespace]:
    asked = SimpleNamespace(handlers=[], left=0, go_on=asyncio.Event())
    client = (await serve(kind, app([("/", handler)], asked=asked)).connect()).send(GET)
    await eventually(lambda: asked.handlers)
    assert not asked.handlers[0].client_has_gone
    return client, asked


@eager_or_not
async def test_client_that_waits_or_closes_its_side_is_there(handler: type, serve: Serve) -> None:
    client, asked = await asking(serve, handler)
    client.half_close()
    await eventually(lambda: asked.left)
    for _ in range(20):  # turns, in which an answer to what was sent ahead would have come
        await asyncio.sleep(0.001)
    assert not asked.handlers[0].client_has_gone
    asked.go_on.set()
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"page")
    assert await client.rest() == b""


@eager_or_not
async def test_client_that_closes_or_resets_has_gone(handler: type, serve: Serve) -> None:
    tornados = (httpserver.HTTPServer, web.Application)  # which tell it, too
    for by, how in (
        *(((), how) for how in ("close", "reset", "half_close reset")),
        *((tornados, how) for how in ("close", "half_close", "reset")),
    ):
        client, asked = await asking(serve, handler, *by)
        for step in how.split():
            getattr(client, step)()
            await eventually(lambda asked=asked: asked.left)
        await eventually(lambda asked=asked: asked.handlers[0].client_has_gone)
        assert asked.left == 1
    client, asked = await asking(serve, handler)
    client.send(GET * 10_000)  # nothing more is read while it waits, a reset neither
    await asyncio.sleep(0.01)
    client.reset()
    await eventually(lambda: asked.handlers[0].client_has_gone)
    assert asked.left == 0


async def test_flush_waits_for_a_client_that_reads_slowly(serve_either: Serve) -> None:
    # Nor does the time of an idle client end it.
    served = serve_either(idle_connection_timeout=0.1, write_timeout=600.0)
    client = (await served.connect(limit=1024)).send(get("/pieces") + GET)
    assert await served.state.standstill() < MUCH
    await asyncio.sleep(0.25)  # the client's time is what is measured
    assert len((await client.answer()).body) == MUCH == served.state.written
    assert (await client.answer()).json["uri"] == "/"


async def test_slow_reader_gets_the_whole_answer(serve_either: Serve, monkeypatch: Patch) -> None:
    monkeypatch.setattr("http1.stream.LINGERING_CLOSE", 0.1)
    served = serve_either()
    for number, beyond in enumerate((b"", GET), 1):  # as it should, and sending on
        client = (await served.connect(limit=1024)).send(get("/whole") + beyond)
        await eventually(lambda number=number: len(served.state.begun) == number)
        await asyncio.sleep(0.25)  # the client's time is what is measured
        assert len((await client.answer()).body) == MUCH


KINDS = (http1.ClientConnection, Exchange, HTTPServerRequest, web.RequestHandler, ssl.SSLObject)

POST = get("/", "Content-Length: 60000", method="POST") + b"x" * 50_000

#: How a connection ends: what the client sends, the status of its answer, and how it leaves. Where
#: that is not said, it waits for the server to close the connection.
ENDS = [
    (GET, 200, "close"),
    (POST, None, "reset"),
    (GET[:-1], None, "reset"),
    (WAITING + GET * 1000, None, "reset"),
    (WAITING, None, "close"),
    (get("/waiting", "Connection: close") + GET, None, "reset"),
    (CLOSE, 200, ""),
    (GET, 200, "half_close"),
    (b"nothing\r\n\r\n", 400, ""),
    (GET[:-1], 408, ""),  # in time it was not whole
    (GET, 200, ""),  # it is idle
    (b"", None, ""),
    (get("/bare/" + "9" * 5000), 500, "close"),  # it raises
]


def left() -> list[Any]:
    # Of the client's side, asyncio's streams keep what they have until they are collected.
    found = [one for one in gc.get_objects() if isinstance(one, KINDS)]
    return [one for one in found if getattr(one, "server_side", True)]


@contextlib.asynccontextmanager
async def nothing_is_left() -> AsyncIterator[None]:
    gc.collect()
    gc.disable()
    before = {id(one) for one in left()}
    try:
        yield
        # In the last turns of what was under way.
        await eventually(lambda: not [one for one in left() if id(one) not in before])
    finally:
        gc.enable()


async def come_and_go(served: Served) -> None:
    """Let one client after the other end in its own way."""
    for sent, status, leave in ENDS:
        if served.tls and leave == "half_close":
            continue  # TLS has none
        served.state.begun.clear()
        served.state.go_on.clear()
        client = (await served.connect()).send(sent)
        if b"/waiting" in sent:
            await eventually(lambda: served.state.begun)
        await client.writer.drain()
        if leave == "half_close":
            client.half_close()
        if status:
            assert (await client.answer()).status == status
        if leave in ("", "half_close"):
            assert await client.rest() == b""
        else:
            getattr(client, leave)()
        served.state.go_on.set()
        await served.leave()
        await eventually(lambda: not served.server.connections)


@pytest.mark.parametrize("over", ["serve", pytest.param("serve_tls", marks=pytest.mark.slow)])
async def test_nothing_is_left_of_a_connection_however_it_ends(
    over: str, io_loop: IOLoop, request: pytest.FixtureRequest, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("tornado.web.app_log.disabled", True)  # the tests' own log would keep it
    limits = {"header_timeout": 0.2, "idle_connection_timeout": 0.2, "body_timeout": 600.0}
    served = request.getfixturevalue(over)(**limits)
    await come_and_go(served)  # what is made once is made
    async with nothing_is_left():
        await come_and_go(served)


async def test_nothing_is_left_of_a_handshake_that_is_not_ended(serve_tls: Serve) -> None:
    served = serve_tls(header_timeout=0.1)
    async with nothing_is_left():
        for sent in (b"", b"\x16\x03\x01", TLS_HELLO, b"GET / HTTP/1.1\r\n\r\n"):
            for end in ("reset", "its time is over", "the server ends"):
                client = (await served.connect(in_clear=True)).send(sent)
                await asyncio.sleep(0.02)
                if end == "reset":
                    client.reset()
                elif end == "the server ends":
                    await served.server.close_all_connections()
                await eventually(lambda: not served.server.connections)


async def test_a_client_whose_handshake_ends_as_it_is_given_up_is_closed(
    serve_tls: Serve, monkeypatch: Patch
) -> None:
    served = serve_tls()
    made = ClientConnection.connection_made

    def give_up(connection: ClientConnection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        served.server._opening[connection].cancel()

    with monkeypatch.context() as patch:
        patch.setattr(ClientConnection, "connection_made", give_up)
        assert await (await served.connect()).rest() == b""
    assert not served.server.connections
    for _ in range(3):  # one of them gets the descriptor
        assert (await (await served.connect()).ask(CLOSE)).status == 200
