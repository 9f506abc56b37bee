"""Every path: it answers the same on stock Tornado, and as ``openapi.yaml`` describes it."""

import gc
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tornado import httpserver, web

import http1
import server
from config import Settings
from counter import Visits
from handlers import route_names
from handlers.static import FOLDER
from replicas import Figures
from tests.support import ROOT, Patch
from tests.support.here import Serve
from tests.support.program import NOWHERE, Site
from tests.support.served import Served, get
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually

#: Paths of each route, and some that are no page.
PATHS = {
    "/": ["/", "/?a=b", "/?wait=1ms", "/?status=503", "/?status=204", "/?wait=1m"],
    **{path: [path] for path in ("/healthz", "/readyz", "/live", "/live/events")},
    **{path: [path] for path in ("/metrics", "/openapi.yaml", "/version", "/faults")},
    "/static/{file}": [f"/static/{file.name}" for file in FOLDER.iterdir()],
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
    for path in ("/metrics", "/version", *(["/faults", "/echo?a=b"] if faults else [])):
        assert "HTTP/1.1 200 OK" in ours["GET", path, "*/*"][0]


async def test_no_handler_is_left_of_any_page_without_garbage_collection() -> None:
    app = server.make_app(Settings(access_log=False, faults=True))
    requests = [one for one in REQUESTS if one[1] != "/?wait=1m"]
    site = Served(app=app)

    def handlers() -> int:
        return sum(isinstance(one, web.RequestHandler) for one in gc.get_objects())

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


DESCRIPTION = ROOT / "openapi.yaml"


def test_every_path_is_described_and_no_other() -> None:
    paths = yaml.safe_load(DESCRIPTION.read_text())["paths"]
    rules = server.make_app(Settings(faults=True, echo=True)).wildcard_router.rules
    described = {*paths} - {"/{other}"}
    assert described == set(route_names(rules).values())  # type: ignore[arg-type]
    assert described == {*PATHS} - {"other"}, "each is compared with stock Tornado's"
    for method in ("get", "head", "put"):  # schemathesis does not find it: it sends no Origin
        assert "403" in paths["/faults"][method]["responses"]


def drive(site: Site, folder: Path, description: Path, *options: str) -> None:
    """Let schemathesis send what the description allows, and what it does not; all must hold.

    Whatever of it is random comes out the same each time.
    """
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", str(description)]
    command += [f"--url={site.url}", "--seed=1", "--generation-database=none", "--no-color"]
    command += ["--request-timeout=60", "--exclude-path=/live/events", *options]  # it has no end
    done = subprocess.run(
        command,
        cwd=folder,
        # To measure schemathesis's own coverage would take half as long again.
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: " in done.stdout


#: A status that was asked for is no error of the server's, nor a refusal.
ASKED_FOR = "--exclude-checks=not_a_server_error,positive_data_acceptance"
AT_LENGTH = "--max-examples=12"


@pytest.fixture
def site(serve: Serve) -> Site:
    flags = ("--access-log=false", "--faults", "--echo")
    return serve(*flags, "--version-label=v1.2", "--labels=zone=eu-1,node=n7")


def test_answers_are_as_described(site: Site, folder: Path) -> None:
    assert site.get("/openapi.yaml") == (200, DESCRIPTION.read_text())
    # It ends within two seconds, half of which schemathesis takes to start.
    briefly = ("--phases=fuzzing", "--max-examples=1", ASKED_FOR, "--exclude-path=/faults")
    drive(site, folder, DESCRIPTION, *briefly)


@pytest.mark.slow
def test_answers_are_as_described_at_length(site: Site, folder: Path) -> None:
    # The page apart, and faults, which are set last, as they change the rest.
    drive(site, folder, DESCRIPTION, AT_LENGTH, "--exclude-path=/", "--exclude-path=/faults")
    changed = folder / "openapi.yaml"
    description = yaml.safe_load(DESCRIPTION.read_text())
    # The page's example is sent with each of the statuses, and need not be waited for so often.
    description["components"]["parameters"]["Wait"]["example"] = "1ms"
    # The tests go on: they neither end the server nor take this machine's cores and memory.
    for name in ("exit", "cpu", "memory"):
        del description["components"]["schemas"]["FaultsToSet"]["properties"][name]
    changed.write_text(yaml.safe_dump(description))
    phases = "--phases=examples,coverage"
    drive(site, folder, changed, AT_LENGTH, phases, "--include-path=/", ASKED_FOR)
    # A range from more to less is refused, which the description cannot say.
    ranges = "--exclude-checks=positive_data_acceptance"
    drive(site, folder, changed, AT_LENGTH, "--include-path=/faults", ranges)


@pytest.mark.slow
def test_answers_are_as_described_without_faults_and_redis(served: Serve, folder: Path) -> None:
    page = (ROOT / "docs/paths.md").read_text().replace("\\\n", " ")
    shown = r"^\$ \S+schemathesis run \S+ --exclude-path /live/events (.+)$"
    (options,) = re.findall(shown, page, re.M)
    site = served(NOWHERE, "--access-log=false")
    # The query is ignored then, whatever it says. /faults and /echo are 404, whatever the method.
    drive(site, folder, DESCRIPTION, AT_LENGTH, *shlex.split(options))
