"""What ``GET /`` and its relatives answer: bytes, forms, methods, headers."""

import json
import socket
import threading
from collections.abc import Callable
from http.client import HTTPMessage

import pytest

from handlers.accept import prefers_json
from tests.support.here import Serve
from tests.support.program import Connect
from tests.support.valkey import Valkey

OFF = "<i>cannot connect to Redis, counter disabled</i>"

NAME = "<b>'&'</b>\"\N{SNOWMAN}"
GREETING = {"name": NAME, "hostname": socket.gethostname()}

Answer = tuple[int, HTTPMessage, bytes]
Fetch = Callable[..., Answer]


@pytest.fixture
def fetch(serve: Serve, connect: Connect) -> Fetch:
    """Ask for a page of a server that counts in a Valkey."""
    client = connect(serve(NAME=NAME))

    def fetch(path: str = "/", method: str = "GET", **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, headers=names)
        answer = client.getresponse()
        return answer.status, answer.headers, answer.read()

    return fetch


def html(visits: object) -> bytes:
    return (
        "<h3>Hello &lt;b&gt;&#x27;&amp;&#x27;&lt;/b&gt;&quot;\N{SNOWMAN}!</h3>"
        f"<b>Hostname:</b> {socket.gethostname()}<br/><b>Visits:</b> {visits}"
    ).encode()


def test_page_is_these_bytes_and_counts_on_from_redis_cli(fetch: Fetch, valkey: Valkey) -> None:
    for number in (1, 2, 3):
        status, headers, body = fetch()
        assert (status, body) == (200, html(number))
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Vary"] == "Accept"
    valkey.client.incr("counter", 38)
    status, headers, body = fetch(If_None_Match="*")
    assert (status, body, headers["Etag"]) == (200, html(42), None), "what was counted is no 304"
    assert valkey.counter() == 42


def test_json_when_it_is_preferred_and_200_without_redis(fetch: Fetch, valkey: Valkey) -> None:
    _, headers, body = fetch(Accept="text/html;q=0.5, application/json")
    assert headers["Content-Type"] == "application/json"
    assert list(json.loads(body).items()) == [*GREETING.items(), ("visits", 1)]
    valkey.kill()
    status, _, body = fetch()
    assert (status, body) == (200, html(OFF))
    status, _, body = fetch(Accept="application/json")
    error = "cannot connect to Redis, counter disabled"
    assert (status, json.loads(body)) == (200, GREETING | {"visits": None, "error": error})


def test_head_answers_as_get_does_and_counts_nothing(fetch: Fetch, valkey: Valkey) -> None:
    for accept in ("text/html", "application/json"):
        head, get = (fetch(method=method, Accept=accept) for method in ("HEAD", "GET"))
        assert (head[0], head[2]) == (200, b"")
        # The next number is not known, so neither is the length (RFC 9110, 8.6).
        assert "Content-Length" not in head[1]
        for headers in head[1], get[1]:
            for name in ("Date", "X-Request-Id", "Content-Length"):
                del headers[name]
        assert sorted(head[1].items()) == sorted(get[1].items())
    assert valkey.counter() == 2


def test_only_get_of_the_page_counts_and_all_carry_the_headers(
    fetch: Fetch, valkey: Valkey
) -> None:
    answers = []
    for path in ("/", "/healthz", "/readyz"):
        answers += [fetch(path, "HEAD")]
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
            answers += [answer := fetch(path, method)]
            assert answer[::2] == (405, b"405 Method Not Allowed\n")
            assert answer[1]["Allow"] == "GET, HEAD"
    for path in (
        *("/nothing", "/healthz/", "//", "/%00", "/%ff", "/..", "/static/", "/echo", "/faults"),
        *("/favicon.ico", "/robots.txt", "/index.html"),
    ):
        for method in ("GET", "PUT", "BREW", "HEAD"):
            answers += [answer := fetch(path, method)]
            assert answer[::2] == (404, b"" if method == "HEAD" else b"404 Not Found\n")
    answers += [fetch("/healthz"), fetch("/readyz")]
    assert valkey.counter() == 0
    answers += [fetch("/?wait=9s&status=503", X_Fault_Rate="1", X_Fault_Wait="9s")]
    assert (answers[-1][0], valkey.counter()) == (200, 1)
    for _, headers, _ in answers:
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none';")
        assert not {"Server", "X-App-Version"} & {*headers}
        assert "tornado" not in str(headers).lower()


def test_request_id_is_echoed_when_well_formed_and_made_otherwise(fetch: Fetch) -> None:
    def answered(*request_ids: str) -> list[str]:
        return [fetch("/healthz", X_Request_ID=one)[1]["X-Request-ID"] for one in request_ids]

    well_formed = ["a", "3f2c-11.b_X", "x" * 128]
    assert answered(*well_formed) == well_formed
    made = answered("", "x" * 129, "a b", 'a"b', "a,b", "\u00e9", "<script>")
    assert len(set(made)) == 7
    assert all(len(one) == 32 and one.isalnum() for one in made)


def test_ready_tells_why_redis_is_down_and_stays_ready_without(
    serve: Serve, connect: Connect, valkey: Valkey, steps: list[threading.Event]
) -> None:
    server = serve()
    client = connect(server)
    valkey.kill()
    assert server.visits() is None
    for code, status in ((200, "ready"), (503, "draining")):
        client.request("GET", "/readyz")
        answer = client.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (code, "application/json")
        said = json.loads(answer.read())
        assert "Connection refused" in said.pop("reason")
        assert said == {"status": status, "redis": "down", "counting": "exactly once"}
        server.signal()
        server.wait_for(b"stopping")
    for step in steps:
        step.set()


PREFERS_JSON = [
    *("application/json", "APPLICATION/JSON", "application/*", "application/json;charset=utf-8"),
    "text/html ; q=0.8 , application/json ; q=0.9",
    "application/json;q=1.000, text/html;q=0.999",
    *("application/json, */*", "text/*, application/json"),  # the more specific (RFC 9110, 12.5.1)
    "application/json, text/plain, */*",  # axios, Angular
    *("application/json, */*;q=0.5", "text/html;q=0, */*"),
    ";,,;q=1,/,application/json",  # what is not well formed is passed over
    # No client has more than 32, or as many parameters, and each takes its time.
    "a/b," * 31 + "application/json",
    "application/json" + ";a=b" * 8 + ";q=0.4, text/html;q=0.5",
]
PREFERS_HTML = [
    *("", "*/*", "text/html", "text/html;q=0", "text/html;q=0, application/json;q=0"),
    *("text/*, application/json;q=0.9", "text/html, application/json", "text/html, application/*"),
    *("application/json;q=0, */*", "application/json;q=0.4;x=y, text/html;q=0.5"),
    "application/json;version=2;q=0.4, text/html;q=0.5",
    *("application/json;q=2", "application/json;q=-1", "application/json;q=high"),
    *("application/json;q=0.1234", "json"),
    *("a/b," * 32 + "application/json", "a/b," * 4000),
    "application/json" + ";a=b" * 7 + ";q=0.4, text/html;q=0.5",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",  # a browser's own
]


def test_json_is_served_when_its_weight_is_higher() -> None:
    assert [accept for accept in PREFERS_JSON if not prefers_json(accept)] == []
    assert [accept for accept in PREFERS_HTML if prefers_json(accept)] == []
