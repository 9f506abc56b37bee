"""Nothing of a connection outlives it, and no garbage collector is needed for that."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

import http1
from http1.exchange import Exchange
from tests.faults.test_clients import TLS_HELLO
from tests.http1.test_server import CLOSE, GET, Client, Contexts, Served, gen_test, new_loop, tls
from tests.support.raw_http import reset
from tests.support.waiting import eventually

__all__ = ["new_loop", "tls"]

KINDS = (http1.ClientConnection, Exchange, HTTPServerRequest, RequestHandler)

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 50_000


class Site:
    """What the handlers do."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()


class Page(http1.RequestHandler):
    EAGER_START = True

    async def get(self) -> None:
        self.finish("page")

    async def post(self) -> None:
        self.finish("posted")


class Waiting(http1.RequestHandler):
    EAGER_START = True

    async def get(self) -> None:
        self.settings["site"].begun += 1
        await self.settings["site"].go_on.wait()
        self.finish("at last")


class Failing(http1.RequestHandler):
    async def get(self) -> None:
        raise ValueError

    def log_exception(self, *exception: Any) -> None:
        pass  # the tests' own log would keep it


async def whole(client: Client, site: Site) -> None:
    assert (await client.ask(GET)).status == 200
    client.writer.close()


async def reset_in_a_body(client: Client, site: Site) -> None:
    client.send(POST)
    await client.writer.drain()
    client.reset()


async def reset_in_a_head(client: Client, site: Site) -> None:
    client.send(GET[:-1])
    await client.writer.drain()
    client.reset()


async def reset_while_it_waits(client: Client, site: Site) -> None:
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n" + GET * 1000)
    await eventually(lambda: site.begun)
    await client.writer.drain()
    client.reset()


async def close_while_it_waits(client: Client, site: Site) -> None:
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: site.begun)
    client.writer.close()


async def last(client: Client, site: Site) -> None:
    assert (await client.ask(CLOSE)).status == 200
    assert await client.rest() == b""


async def half_close(client: Client, site: Site) -> None:
    client.send(GET).half_close()
    assert (await client.answer()).status == 200
    assert await client.rest() == b""


async def refused(client: Client, site: Site) -> None:
    assert b" 400 " in await client.send(b"nothing\r\n\r\n").rest()


async def too_late(client: Client, site: Site) -> None:
    assert b" 408 " in await client.send(GET[:-1]).rest()


async def idle(client: Client, site: Site) -> None:
    assert (await client.ask(GET)).status == 200
    assert await client.rest() == b""


async def silent(client: Client, site: Site) -> None:
    assert await client.rest() == b""


async def failing(client: Client, site: Site) -> None:
    assert (await client.ask(b"GET /failing HTTP/1.1\r\nHost: a\r\n\r\n")).status == 500
    client.writer.close()


ENDS: list[Callable[[Client, Site], Awaitable[None]]] = [
    *(whole, reset_in_a_body, reset_in_a_head, reset_while_it_waits, close_while_it_waits, last),
    *(half_close, refused, too_late, idle, silent, failing),
]


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def left() -> list[Any]:
    return [one for one in gc.get_objects() if isinstance(one, (*KINDS, ssl.SSLObject))]


def served(**options: Any) -> tuple[Served, Site]:
    site = Site()
    routes = [("/", Page), ("/waiting", Waiting), ("/failing", Failing)]
    app = http1.Application(routes, site=site, log_function=lambda _: None)
    limits = {"header_timeout": 0.2, "idle_connection_timeout": 0.2, "body_timeout": 5.0}
    return Served(http1.HTTPServer(app, **limits | options), site), site  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "over_tls", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "TLS"]
)
@pytest.mark.parametrize("end", ENDS)
@gen_test
async def test_nothing_is_left_of_a_connection_however_it_ends(
    end: Callable[[Client, Site], Awaitable[None]], over_tls: bool, io_loop: IOLoop, tls: Contexts
) -> None:
    if over_tls and end is half_close:
        pytest.skip("TLS has none")
    server, site = served(ssl_options=tls.server if over_tls else None)
    options = {"ssl": tls.client, "server_hostname": "localhost"} if over_tls else {}
    await end(await server.connect(**options), site)  # what is made once is made
    site.go_on.set()
    for client in server._clients:
        client.writer.close()
    server._clients.clear()
    del client
    await eventually(lambda: not server.server.connections)
    with no_collector():
        before = {id(one) for one in left()}
        site.go_on.clear()
        site.begun = 0
        await end(await server.connect(**options), site)
        if "waits" in end.__name__:
            site.go_on.set()
        server._clients.pop().writer.close()
        # Of the client's side, asyncio's streams keep what they have until they are collected.
        await eventually(lambda: not server.server.connections)

        def is_free() -> bool:
            found = [one for one in left() if id(one) not in before]
            return not [one for one in found if getattr(one, "server_side", True)]

        await eventually(is_free, 5)
    await server.close()


@gen_test
async def test_nothing_is_left_of_a_handshake_that_is_not_ended(
    io_loop: IOLoop, tls: Contexts
) -> None:
    server, _ = served(ssl_options=tls.server)
    for sent in (b"", b"\x16\x03\x01", TLS_HELLO, b"GET / HTTP/1.1\r\n\r\n"):
        with no_collector():
            before = {id(one) for one in left()}
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(sent)
            await asyncio.sleep(0.02)
            reset(sock)
            await eventually(lambda: not server.server.connections)
            await eventually(lambda: {id(one) for one in left()} <= before, 5)  # noqa: B023
    await server.close()
