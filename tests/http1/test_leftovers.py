"""Nothing of a connection outlives it, and no garbage collector is needed for that."""

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

import http1
from http1.exchange import Exchange
from tests.faults.test_clients import TLS_HELLO
from tests.support import Patch
from tests.support.served import CLOSE, GET, WAITING, Serve, Served, get
from tests.support.waiting import eventually

KINDS = (http1.ClientConnection, Exchange, HTTPServerRequest, RequestHandler, ssl.SSLObject)

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
    served = serve_tls()
    async with nothing_is_left():
        for sent in (b"", b"\x16\x03\x01", TLS_HELLO, b"GET / HTTP/1.1\r\n\r\n"):
            client = (await served.connect(in_clear=True)).send(sent)
            await asyncio.sleep(0.02)
            client.reset()
            await eventually(lambda: not served.server.connections)
