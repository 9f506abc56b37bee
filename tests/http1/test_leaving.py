"""A handler knows, when it is about to answer, whether its client is there to read the answer."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tornado import httpserver, web
from tornado.ioloop import IOLoop

import http1
from tests.http1.test_server import GET, Client, Served, State, gen_test, new_loop
from tests.support.waiting import eventually

__all__ = ["new_loop"]

Serve = Callable[..., Served]


class Asked:
    """The handlers that wait to answer."""

    def __init__(self) -> None:
        self.handlers: list[http1.RequestHandler] = []
        self.left = 0  # those that were told that the client may have gone
        self.go_on = asyncio.Event()


class Waiting(http1.RequestHandler):
    """Answers when the test says so."""

    async def get(self) -> None:
        asked: Asked = self.settings["asked"]
        asked.handlers.append(self)
        await asked.go_on.wait()
        self.finish("page")

    def on_connection_close(self) -> None:
        self.settings["asked"].left += 1


class EagerWaiting(Waiting):
    EAGER_START = True


@pytest.fixture(params=[Waiting, EagerWaiting])
def serve(request: pytest.FixtureRequest, io_loop: IOLoop) -> Serve:
    def start(server: Any = http1.HTTPServer, application: Any = http1.Application) -> Served:
        app = application([("/", request.param)], asked=Asked())
        served = Served(server(app), State())
        served.asked = app.settings["asked"]  # type: ignore[attr-defined]
        return served

    return start


async def asking(served: Any) -> tuple[Client, http1.RequestHandler]:
    client = (await served.connect()).send(GET)
    await eventually(lambda: served.asked.handlers)
    [handler] = served.asked.handlers
    assert not handler.client_has_gone
    return client, handler


@gen_test
async def test_client_that_waits_and_one_that_has_closed_its_side_are_there(serve: Serve) -> None:
    served: Any = serve()
    client, handler = await asking(served)
    client.half_close()
    await eventually(lambda: served.asked.left)
    for _ in range(20):  # turns, in which an answer to what was sent ahead would have come
        await asyncio.sleep(0.001)
    assert not handler.client_has_gone
    served.asked.go_on.set()
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"page")
    assert await client.rest() == b""


@gen_test
async def test_client_that_has_closed_its_connection_has_gone(serve: Serve) -> None:
    served = serve()
    client, handler = await asking(served)
    client.writer.close()
    await eventually(lambda: handler.client_has_gone)


@gen_test
async def test_client_that_resets_has_gone(serve: Serve) -> None:
    served = serve()
    client, handler = await asking(served)
    client.reset()
    await eventually(lambda: handler.client_has_gone)


@gen_test
async def test_client_that_resets_after_it_has_closed_its_side_has_gone(serve: Serve) -> None:
    served: Any = serve()
    client, handler = await asking(served)
    client.half_close()
    await eventually(lambda: served.asked.left)
    client.reset()
    await eventually(lambda: handler.client_has_gone)


@gen_test
async def test_client_that_sends_on_and_resets_has_gone(serve: Serve) -> None:
    """Nothing more is read while it waits, a reset neither."""
    served = serve()
    client, handler = await asking(served)
    client.send(GET * 10_000)
    await asyncio.sleep(0.01)
    client.reset()
    await eventually(lambda: handler.client_has_gone)


@pytest.mark.parametrize("leave", ["writer.close", "half_close", "reset"])
@gen_test
async def test_tornados_own_server_tells_it_too(leave: str, serve: Serve) -> None:
    served = serve(httpserver.HTTPServer, web.Application)
    client, handler = await asking(served)
    if leave == "writer.close":
        client.writer.close()
    else:
        getattr(client, leave)()
    await eventually(lambda: handler.client_has_gone)
