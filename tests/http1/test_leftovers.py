"""Nothing of a connection outlives it, and no garbage collector is needed for that."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

import http1
from http1.exchange import Exchange
from tests.faults.test_clients import TLS_HELLO
from tests.support.raw_http import reset
from tests.support.served import CLOSE, GET, WAITING, Client, Serve, Served, get
from tests.support.waiting import eventually

KINDS = (http1.ClientConnection, Exchange, HTTPServerRequest, RequestHandler, ssl.SSLObject)

POST = get("/", "Content-Length: 60000", method="POST") + b"x" * 50_000


class End(NamedTuple):
    """How a connection ends: what the client sends and is answered, and how it leaves.

    Without `leave` it waits for the server to close the connection.
    """

    sent: bytes
    status: int | None = None
    leave: Callable[[Client], None] | None = None

    async def come(self, client: Client, begun: list[str]) -> None:
        client.send(self.sent)
        if b"/waiting" in self.sent:
            await eventually(lambda: begun)
        await client.writer.drain()
        if self.leave is Client.half_close:
            client.half_close()
        if self.status:
            assert (await client.answer()).status == self.status
        if self.leave in (None, Client.half_close):
            assert await client.rest() == b""
        else:
            self.leave(client)


ENDS = [
    End(GET, 200, Client.close),
    End(POST, None, Client.reset),
    End(GET[:-1], None, Client.reset),
    End(WAITING + GET * 1000, None, Client.reset),
    End(WAITING, None, Client.close),
    End(get("/waiting", "Connection: close") + GET, None, Client.reset),
    End(CLOSE, 200),
    End(GET, 200, Client.half_close),
    End(b"nothing\r\n\r\n", 400),
    End(GET[:-1], 408),  # in time it was not whole
    End(GET, 200),  # it is idle
    End(b""),
    End(get("/bare/" + "9" * 5000), 500, Client.close),  # it raises
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
    for end in ENDS:
        if served.tls and end.leave is Client.half_close:
            continue  # TLS has none
        served.state.begun.clear()
        served.state.go_on.clear()
        await end.come(await served.connect(), served.state.begun)
        served.state.go_on.set()
        await served.leave()
        await eventually(lambda: not served.server.connections)


@pytest.mark.parametrize("over", ["serve", pytest.param("serve_tls", marks=pytest.mark.slow)])
async def test_nothing_is_left_of_a_connection_however_it_ends(
    over: str, io_loop: IOLoop, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
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
            sock = socket.create_connection(("127.0.0.1", served.port))
            sock.sendall(sent)
            await asyncio.sleep(0.02)
            reset(sock)
            await eventually(lambda: not served.server.connections)
