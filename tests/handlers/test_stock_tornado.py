"""Every page is the same on Tornado's own Application and HTTPServer as on ours."""

import asyncio
import contextlib
import gc
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from tornado import httpserver, web
from tornado.testing import bind_unused_port

import http1
import server
from config import Settings
from counter import Visits
from handlers.static import FOLDER
from replicas import Figures
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually

#: Paths of each route, and some that are no page.
PATHS = {
    "/": ["/", "/?a=b", "/?wait=1ms", "/?status=503", "/?status=204", "/?wait=1m"],
    "/healthz": ["/healthz"],
    "/readyz": ["/readyz"],
    "/live": ["/live"],
    "/live/events": ["/live/events"],
    "/static/{file}": [f"/static/{file.name}" for file in FOLDER.iterdir()],
    "/metrics": ["/metrics"],
    "/openapi.yaml": ["/openapi.yaml"],
    "/version": ["/version"],
    "/faults": ["/faults"],
    "/echo": ["/echo?a=b"],
    "other": ["/nothing", "//", "/live/", "/static/none"],
}

REQUESTS = [
    (method, path, accept)
    for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "BREW")
    for paths in PATHS.values()
    for path in paths
    for accept in ("*/*", "application/json")
]

#: What differs between any two answers.
OF_THE_MOMENT = {"date", "x-request-id", "expires"}


class Answer(NamedTuple):
    """What a client makes of an answer."""

    status: str
    headers: dict[str, str]
    body: str


@contextlib.asynccontextmanager
async def serving(kind: type[httpserver.HTTPServer], app: web.Application) -> AsyncIterator[int]:
    """Serve on a port."""
    running = kind(app)
    listening, port = bind_unused_port()
    running.add_socket(listening)
    try:
        yield port
    finally:
        running.stop()
        await running.close_all_connections()


async def ask(port: int, method: str, path: str, accept: str) -> Answer:
    """Send a request; of a stream, which has no end, read its beginning."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (f"{method} {path} HTTP/1.1", "Host: a", f"Accept: {accept}", "Connection: close")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    if (method, path) == ("GET", "/live/events"):
        received = await reader.readuntil(b"retry: ")
    else:
        received = await reader.read()
    writer.close()
    head, _, body = received.decode().partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in fields)}
    for name in OF_THE_MOMENT & headers.keys():
        headers[name] = "…"
    if headers.get("transfer-encoding") == "chunked":
        body = re.sub(r"^[0-9a-f]+\r\n", "", body)
    if path.startswith("/echo"):  # ports differ, and so may the length that they make
        headers.pop("content-length", None)
        body = re.sub(r"127\.0\.0\.1:\d+", "…", body)
    if path == "/metrics":  # its samples differ, and so does the length that they make
        headers.pop("content-length", None)
        body = re.sub(r" [-+.\de]+$", " …", body, flags=re.M)
        body = re.sub(r"^friendlyhello_requests_total.*\n", "", body, flags=re.M)
        body = re.sub(r"^process_.*\n", "", body, flags=re.M)
    return Answer(status, headers, body)


@pytest.mark.parametrize("faults", [False, True], ids=["no faults", "faults"])
async def test_every_page_is_the_same_on_stock_tornado(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, faults: bool
) -> None:
    settings = Settings(access_log=False, faults=faults, echo=faults, version_label="v1")
    answers = []
    kinds: list[tuple[Any, Any]] = [
        (web.Application, httpserver.HTTPServer),
        (http1.Application, http1.HTTPServer),
    ]
    for application, kind in kinds:
        monkeypatch.setattr(server, "Application", application)
        valkey.client.flushall()
        visits = Visits(valkey.url, timeout=PATIENCE, beside=Figures("web"))
        app = server.make_app(settings, visits)
        assert type(app) is application
        async with serving(kind, app) as port:
            answers.append({request: await ask(port, *request) for request in REQUESTS})
        await visits.close()
    stock, ours = answers
    assert ours == stock
    assert ours["GET", "/", "*/*"].body.endswith("<b>Visits:</b> 1")


def handlers() -> int:
    return sum(isinstance(one, web.RequestHandler) for one in gc.get_objects())


async def test_no_handler_is_left_of_any_page_without_garbage_collection() -> None:
    app = server.make_app(Settings(access_log=False, faults=True))
    requests = [one for one in REQUESTS if one[1] != "/?wait=1m"]
    async with serving(http1.HTTPServer, app) as port:
        for request in requests:  # what is made once is made
            await ask(port, *request)
        gc.collect()
        gc.disable()
        try:
            before = handlers()
            for request in requests:
                await ask(port, *request)
            await eventually(lambda: handlers() <= before, 10)
        finally:
            gc.enable()
