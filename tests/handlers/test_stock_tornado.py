"""Every page is the same on Tornado's own Application and HTTPServer as on ours."""

import gc
import re
from typing import Any

import pytest
from tornado import httpserver, web

import http1
import server
from config import Settings
from counter import Visits
from handlers.static import FOLDER
from replicas import Figures
from tests.support import Patch
from tests.support.served import Served, get
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

#: What differs between any two answers, by path: ports, samples, and the length that they make.
OF_THE_MOMENT = {
    "": r"(Date: |X-Request-Id: |Expires: )[^\r]*|^[0-9a-f]+\r\n",
    "/echo": r"(Content-Length: )\d+|127\.0\.0\.1:\d+",
    "/metrics": r"(Content-Length: )\d+|^(?:friendlyhello_requests_total|process_).*\n| [-+.\de]+$",
}


async def ask(site: Served, method: str, path: str, accept: str) -> tuple[list[str], str]:
    """Return the lines of an answer's head, and its body; of a stream, the body's beginning."""
    client = await site.connect()
    client.send(get(path, f"Accept: {accept}", "Connection: close", method=method))
    is_stream = (method, path) == ("GET", "/live/events")
    received = await (client.reader.readuntil(b"retry: ") if is_stream else client.rest())
    client.close()
    text = received.decode()
    for begin, differing in OF_THE_MOMENT.items():
        if path.startswith(begin):
            text = re.sub(differing, r"\1…", text, flags=re.M)
    head, _, body = text.partition("\r\n\r\n")
    return sorted(head.split("\r\n")), body


@pytest.mark.parametrize("faults", [False, True], ids=["no faults", "faults"])
async def test_every_page_is_the_same_on_stock_tornado(
    valkey: Valkey, monkeypatch: Patch, faults: bool
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
        site = Served(kind, app)
        answers.append({request: await ask(site, *request) for request in REQUESTS})
        await site.close()
        await visits.close()
    stock, ours = answers
    assert ours == stock
    assert ours["GET", "/", "*/*"][1].endswith("<b>Visits:</b> 1")


def handlers() -> int:
    return sum(isinstance(one, web.RequestHandler) for one in gc.get_objects())


async def test_no_handler_is_left_of_any_page_without_garbage_collection() -> None:
    app = server.make_app(Settings(access_log=False, faults=True))
    requests = [one for one in REQUESTS if one[1] != "/?wait=1m"]
    site = Served(app=app)
    for request in requests:  # what is made once is made
        await ask(site, *request)
    gc.collect()
    gc.disable()
    try:
        before = handlers()
        for request in requests:
            await ask(site, *request)
        await eventually(lambda: handlers() <= before, 10)
    finally:
        gc.enable()
    await site.close()
