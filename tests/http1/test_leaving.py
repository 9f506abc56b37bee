"""Clients that read slowly, or leave: a handler knows whether its client is there."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tornado import httpserver, web

import http1
from tests.support import Patch
from tests.support.served import GET, Client, Serve, get
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
async def test_client_that_waits_or_has_closed_its_side_is_there(
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


TORNADOS = (httpserver.HTTPServer, web.Application)


@eager_or_not
@pytest.mark.parametrize(
    ("how", "by"),
    [
        *((how, ()) for how in ("close", "reset", "half_close reset", "sending on")),
        *((how, TORNADOS) for how in ("close", "half_close", "reset")),  # its own server tells too
    ],
)
async def test_client_that_closes_or_resets_has_gone(
    how: str, by: tuple[Any, ...], handler: type, serve: Serve
) -> None:
    client, asked = await asking(serve, handler, *by)
    if how == "sending on":  # nothing more is read while it waits, a reset neither
        client.send(GET * 10_000)
        await asyncio.sleep(0.01)
        client.reset()
    else:
        for step in how.split():
            getattr(client, step)()
            await eventually(lambda: asked.left)
    await eventually(lambda: asked.handlers[0].client_has_gone)
    assert asked.left == (how != "sending on")


async def test_flush_waits_for_a_client_that_reads_slowly(serve_either: Serve) -> None:
    # Nor does the time of an idle client end it.
    served = serve_either(idle_connection_timeout=0.1, write_timeout=600.0)
    client = (await served.connect(limit=1024)).send(get("/pieces") + GET)
    assert await served.state.standstill() < MUCH
    await asyncio.sleep(0.25)  # the client's time is what is measured
    assert len((await client.answer()).body) == MUCH == served.state.written
    assert (await client.answer()).json["uri"] == "/"


@pytest.mark.parametrize("beyond", [b"", GET], ids=["as it should", "sending on"])
async def test_slow_reader_gets_the_whole_last_answer(
    beyond: bytes, serve_either: Serve, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("http1.stream.LINGERING_CLOSE", 0.1)
    served = serve_either()
    client = (await served.connect(limit=1024)).send(get("/whole") + beyond)
    await eventually(lambda: served.state.begun)
    await asyncio.sleep(0.25)  # the client's time is what is measured
    assert len((await client.answer()).body) == MUCH
