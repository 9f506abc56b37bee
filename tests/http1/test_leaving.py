"""Clients that read slowly, or leave: a handler knows whether its client is there."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tornado import httpserver, web

import http1
from tests.support.served import GET, Client, Serve, Served, get
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
async def test_client_that_waits_and_one_that_has_closed_its_side_are_there(
    handler: type, serve: Serve
) -> None:
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


async def test_idle_client_that_closes_its_side_is_closed_at_once(serve: Serve) -> None:
    client = await serve(idle_connection_timeout=600.0).connect()
    assert (await client.ask(GET)).status == 200
    client.half_close()
    assert await client.rest() == b""


async def leave(client: Client, asked: SimpleNamespace, how: str) -> None:
    match how:
        case "reset after half_close":
            client.half_close()
            await eventually(lambda: asked.left)
            client.reset()
        case "reset sending on":  # nothing more is read while it waits, a reset neither
            client.send(GET * 10_000)
            await asyncio.sleep(0.01)
            client.reset()
        case _:
            getattr(client, how)()


TORNADOS = (httpserver.HTTPServer, web.Application)


@eager_or_not
@pytest.mark.parametrize(
    ("how", "by"),
    [
        *((how, ()) for how in ("close", "reset", "reset after half_close", "reset sending on")),
        *((how, TORNADOS) for how in ("close", "half_close", "reset")),  # its own server tells too
    ],
)
async def test_client_that_closes_or_resets_has_gone(
    how: str, by: tuple[Any, ...], handler: type, serve: Serve
) -> None:
    client, asked = await asking(serve, handler, *by)
    await leave(client, asked, how)
    await eventually(lambda: asked.handlers[0].client_has_gone)
    assert asked.left == 1 or how == "reset sending on"


async def reading_slowly(served: Served) -> Client:
    client = (await served.connect(limit=1024)).send(get("/pieces") + GET)
    assert await served.state.standstill() < MUCH
    return client


async def test_flush_waits_for_a_client_that_reads_slowly(serve_either: Serve) -> None:
    # Nor does the time of an idle client end it.
    served = serve_either(idle_connection_timeout=0.1, write_timeout=600.0)
    client = await reading_slowly(served)
    await asyncio.sleep(0.25)  # the client's time is what is measured
    assert len((await client.answer()).body) == MUCH == served.state.written
    assert (await client.answer()).json["uri"] == "/"


async def test_flush_ends_when_the_client_leaves(serve: Serve) -> None:
    served = serve()
    (await reading_slowly(served)).reset()
    await eventually(lambda: served.state.is_over)
    assert served.state.left == 1
    assert served.state.written < MUCH


@pytest.mark.parametrize("beyond", [b"", GET], ids=["as it should", "sending on"])
async def test_slow_reader_gets_the_whole_last_answer(
    beyond: bytes, serve_either: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http1.stream.LINGERING_CLOSE", 0.1)
    served = serve_either()
    client = (await served.connect(limit=1024)).send(get("/whole") + beyond)
    await eventually(lambda: served.state.begun)
    await asyncio.sleep(0.25)  # the client's time is what is measured
    assert len((await client.answer()).body) == MUCH
