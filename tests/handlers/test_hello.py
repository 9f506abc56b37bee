"""What ``GET /`` and its relatives answer: bytes, forms, methods, headers."""

import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest

from handlers.accept import prefers_json
from tests.support.here import Serve
from tests.support.program import Connect
from tests.support.valkey import Valkey

OFF = "<i>cannot connect to Redis, counter disabled</i>"


class Answer(NamedTuple):
    code: int
    headers: http.client.HTTPMessage
    body: bytes


Fetch = Callable[..., Answer]


@pytest.fixture
def fetch(serve: Serve, connect: Connect) -> Fetch:
    """Ask for a page of a server that counts in a Valkey."""
    client = connect(serve())

    def fetch(path: str = "/", method: str = "GET", **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, headers=names)
        answer = client.getresponse()
        return Answer(answer.status, answer.headers, answer.read())

    return fetch


def html(visits: object) -> bytes:
    page = (
        f"<h3>Hello world!</h3><b>Hostname:</b> {socket.gethostname()}<br/><b>Visits:</b> {visits}"
    )
    return page.encode()


def test_page_is_these_bytes_and_counts_on_from_what_redis_cli_left(
    fetch: Fetch, valkey: Valkey
) -> None:
    for number in (1, 2, 3):
        answer = fetch()
        assert answer.code == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Vary"] == "Accept"
        assert answer.body == html(number)
    valkey.client.incr("counter", 38)
    answer = fetch(If_None_Match="*")
    assert (answer.code, answer.body) == (200, html(42)), "what was counted is no 304"
    assert "Etag" not in answer.headers
    assert valkey.counter() == 42


def test_json_when_it_is_preferred_and_without_redis_a_greeting_with_status_200(
    fetch: Fetch, valkey: Valkey
) -> None:
    greeting = {"name": "world", "hostname": socket.gethostname()}
    answer = fetch(Accept="text/html;q=0.5, application/json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == json.dumps(greeting | {"visits": 1}).encode()
    valkey.kill()
    answer = fetch()
    assert (answer.code, answer.body) == (200, html(OFF))
    answer = fetch(Accept="application/json")
    error = "cannot connect to Redis, counter disabled"
    assert answer.code == 200
    assert json.loads(answer.body) == greeting | {"visits": None, "error": error}


def test_head_answers_as_get_does_and_counts_nothing(fetch: Fetch, valkey: Valkey) -> None:
    differ = {"Date", "X-Request-Id", "Content-Length"}
    for accept in ("text/html", "application/json"):
        head, get = (fetch(method=method, Accept=accept) for method in ("HEAD", "GET"))
        assert (head.code, head.body) == (200, b"")
        assert {(k, v) for k, v in head.headers.items() if k not in differ} == {
            (k, v) for k, v in get.headers.items() if k not in differ
        }
        # The next number is not known, so neither is the length (RFC 9110, 8.6).
        assert "Content-Length" not in head.headers
    assert valkey.counter() == 2


def test_only_get_of_the_page_counts_and_every_answer_carries_the_headers_that_all_do(
    fetch: Fetch, valkey: Valkey
) -> None:
    answers = []
    for path in ("/", "/healthz", "/readyz"):
        answers += [fetch(path, "HEAD")]
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
            answers += [answer := fetch(path, method)]
            assert (answer.code, answer.headers["Allow"]) == (405, "GET, HEAD")
            assert answer.body == b"405 Method Not Allowed\n"
    for path in (
        *("/nothing", "/healthz/", "//", "/%00", "/%ff", "/..", "/static/"),
        *("/favicon.ico", "/robots.txt", "/index.html"),
    ):
        for method in ("GET", "POST", "BREW", "HEAD"):
            answers += [answer := fetch(path, method)]
            body = b"" if method == "HEAD" else b"404 Not Found\n"
            assert (answer.code, answer.body) == (404, body)
    answers += [fetch("/healthz"), fetch("/readyz")]
    assert valkey.counter() == 0
    answers += [fetch("/?a=query")]
    assert valkey.counter() == 1
    for _, headers, _ in answers:
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none';")
        assert "Server" not in headers
        assert "tornado" not in str(headers).lower()


def test_request_id_is_echoed_when_well_formed_and_made_otherwise(fetch: Fetch) -> None:
    def answered(request_id: str) -> str:
        return fetch("/healthz", X_Request_ID=request_id).headers["X-Request-ID"]

    for well_formed in ("a", "3f2c-11.b_X", "x" * 128):
        assert answered(well_formed) == well_formed
    ill_formed = ("", "x" * 129, "a b", 'a"b', "a,b", "\u00e9", "<script>")
    made = {answered(one) for one in ill_formed}
    assert len(made) == len(ill_formed)
    assert all(len(one) == 32 and one.isalnum() for one in made)


def test_ready_tells_why_redis_is_down_and_stays_ready_without(
    serve: Serve, connect: Connect, valkey: Valkey, steps: list[threading.Event]
) -> None:
    server = serve()
    client = connect(server)
    valkey.kill()
    assert server.visits() is None
    for code, status in ((200, "ready"), (503, "draining")):
        if status == "draining":
            server.signal()
            server.wait_for(b"stopping")
        client.request("GET", "/readyz")
        answer = client.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (code, "application/json")
        said = json.loads(answer.read())
        assert "Connection refused" in said.pop("reason")
        assert said == {"status": status, "redis": "down", "counting": "exactly once"}
    for step in steps:
        step.set()


def test_name_is_escaped_in_html_and_itself_in_json(serve: Serve) -> None:
    name = "<script>alert('&')</script>\"\N{SNOWMAN}"
    server = serve(NAME=name)
    escaped = "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;&quot;\N{SNOWMAN}"
    assert server.get()[1].startswith(f"<h3>Hello {escaped}!</h3><b>")
    assert json.loads(server.get("/", Accept="application/json")[1])["name"] == name


PREFERS_JSON = [
    *("application/json", "APPLICATION/JSON", "application/*", "application/json;charset=utf-8"),
    "text/html;q=0.8, application/json;q=0.9",
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
