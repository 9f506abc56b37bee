"""``--version-label``, ``--labels`` and ``--faults``: what a platform is tested with."""

import json
import re
import socket
import time
from http.client import HTTPConnection
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from config import VERSION
from handlers.faulty import EMPTY, STATUSES
from tests.support.here import Serve
from tests.support.program import Connect, Site, read, seen
from tests.support.raw_http import open_to, reset
from tests.support.valkey import Valkey

JSON = {"Accept": "application/json"}


def in_events(server: Site) -> dict[str, object]:
    (replica,) = cast("list[dict[str, object]]", server.event()["replicas"])
    return replica


def test_version_and_labels_are_in_json_in_the_events_and_in_the_metrics(
    serve: Serve, connect: Connect
) -> None:
    server = serve(LABELS='zone=eu-1,empty=,rule=a=b,place="Köln <b>" \\n', VERSION_LABEL="v1.2+b")
    labels = {"zone": "eu-1", "rule": "a=b", "place": '"Köln <b>" \\n'}
    told = json.loads(server.get("/", **JSON)[1])
    assert list(told) == ["name", "hostname", "version", "labels", "visits"]
    assert (told["version"], told["labels"]) == ("v1.2+b", labels)
    (info,) = (
        sample
        for family in text_string_to_metric_families(server.get("/metrics")[1])
        for sample in family.samples
        if sample.name == "friendlyhello_info"
    )
    assert info.labels == {"version": "v1.2+b", "program_version": VERSION, **labels}
    replica = in_events(server)
    assert (replica["version"], replica["labels"]) == ("v1.2+b", labels)
    page = server.get("/")[1]
    assert not any(word in page for word in ("eu-1", "v1.2")), "its bytes are the same for all"
    client = connect(server)
    for method, path in (
        *(("GET", "/"), ("HEAD", "/"), ("POST", "/"), ("GET", "/nothing")),
        *(("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("BREW", "/")),
    ):
        client.request(method, path)
        answer = client.getresponse()
        answer.read()
        assert answer.headers.get_all("X-App-Version") == ["v1.2+b"], path
    # An answer that the HTTP server gives by itself.
    with open_to(server) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert b"\r\nX-App-Version: v1.2+b\r\n" in raw.recv(65536)


def test_without_them_nothing_names_a_version_or_asks_for_a_fault(
    serve: Serve, connect: Connect
) -> None:
    server = serve()
    client = connect(server)
    client.request("GET", "/", headers=JSON)
    answer = client.getresponse()
    assert list(json.loads(answer.read())) == ["name", "hostname", "visits"]
    assert "X-App-Version" not in answer.headers
    assert not in_events(server).keys() & {"version", "labels"}
    begun = time.monotonic()
    for number, query in enumerate(("wait=9s", "status=503", "wait=x&status=y"), 2):
        status, page = server.get(f"/?{query}", X_Fault_Rate="1")
        assert (status, page[-1]) == (200, str(number))
    assert time.monotonic() - begun < 9
    for found in server.get("/faults"), server.put("/faults", b'{"rate": 1}'):
        assert found == (404, "404 Not Found\n")


NOT_TO_BE_ASKED_FOR = [
    *("wait=", "wait=1", "wait=1m", "wait=-1s", "wait=11s", "wait=10001ms", "wait=1e3ms"),
    *("wait=%D9%A1s", "wait=nans", "wait=1s&wait=1s", "wait=1s%0d%0aX-Y:z"),
    *("status=", "status=100", "status=101", "status=199", "status=999", "status=600"),
    *("status=x", "status=5003", "status=-503", "status=200&status=503", "status=%FF"),
]


def test_what_cannot_be_asked_for_is_400_with_one_line(serve: Serve, valkey: Valkey) -> None:
    server = serve("--faults")
    for query in NOT_TO_BE_ASKED_FOR:
        status, text = server.get(f"/?{query}")
        assert status == 400, query
        assert re.fullmatch(r"400 Bad Request: (wait|status) is [ -~]+\n", text), query
    assert valkey.counter() == 0


def test_status_is_forced_and_not_counted(serve: Serve, connect: Connect, valkey: Valkey) -> None:
    server = serve("--faults", "--access-log=false")
    client = connect(server)  # one connection: each answer ends where it says
    for method in ("GET", "HEAD"):
        for status in sorted(STATUSES - {200}):
            client.request(method, f"/?status={status}", headers=JSON)
            answer = client.getresponse()
            body = answer.read()
            assert answer.status == status
            assert answer.headers["Cache-Control"] == "no-store"
            if status in EMPTY:
                assert body == b""
                assert "Content-Type" not in answer.headers
            elif method == "GET":
                said = {"status": status, "title": answer.reason}
                line = f"{status} {answer.reason}\n"
                assert body.decode() == (json.dumps(said) if status >= 400 else line)
            if status == 405:
                assert answer.headers["Allow"] == "GET, HEAD"
    assert valkey.counter() == 0
    assert server.get("/?status=200")[1].endswith("<b>Visits:</b> 1")
    assert server.get("/?status=503", method="POST") == (405, "405 Method Not Allowed\n")
    assert server.get("/healthz?status=503")[0] == 200
    text = server.get("/metrics")[1]
    assert 'friendlyhello_requests_total{code="418",method="GET",route="/"} 1.0' in text


def test_wait_delays_answers_that_are_counted_and_holds_nobody_up(
    serve: Serve, connect: Connect
) -> None:
    server = serve("--faults", "--access-log=false")
    waiting = {connect(server): text for text in 10 * ["250ms", "0.3s", "0.5s"]}
    begun = time.monotonic()
    for client, text in waiting.items():
        client.request("GET", f"/?wait={text}")
    pages = [server.get("/?wait=0s")[1]]
    for client, text in waiting.items():
        pages.append(read(client)[1])
        seconds = 0.25 if text == "250ms" else float(text[:-1])
        assert time.monotonic() - begun > seconds - 0.01  # a clock may count milliseconds
    assert time.monotonic() - begun < 5  # one after the other, they would take twice as long
    assert sorted(int(page.rpartition("</b> ")[2]) for page in pages) == list(range(1, 32))


@pytest.mark.parametrize("whole_replica", [False, True])
def test_a_client_that_leaves_while_it_is_to_wait_is_not_counted_and_one_that_reads_on_is(
    whole_replica: bool, serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    server = serve("--faults")

    def waiting(wait: str) -> HTTPConnection:
        if whole_replica:
            server.put("/faults", json.dumps({"wait": wait}).encode())
        client = connect(server)
        client.request("GET", "/" if whole_replica else f"/?wait={wait}")
        return client

    begun = time.monotonic()
    for leave in HTTPConnection.close, lambda one: reset(one.sock):
        client = waiting("9s")
        seen(connect(server))
        leave(client)
        server.wait_for(rb"400 GET /")
        server.log = b""
    assert time.monotonic() - begun < 9
    assert valkey.counter() == 0
    client = waiting("300ms")
    client.sock.shutdown(socket.SHUT_WR)
    status, page = read(client)
    assert (status, page[-1:]) == (200, "1")


@pytest.mark.parametrize(("grace", "counted"), [("30", 1), ("0.2", 0)])
def test_a_visit_that_waits_is_in_flight_when_the_server_stops_until_the_grace_ends(
    grace: str, counted: int, serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    server = serve("--faults", f"--grace={grace}")
    client = connect(server)
    client.request("GET", "/?wait=1s" if counted else "/?wait=10s")
    seen(connect(server))
    begun = time.monotonic()
    server.signal()
    if counted:
        status, page = read(client)
        assert (status, page[-1]) == (200, "1")
    server.stop()
    assert time.monotonic() - begun < 9
    assert valkey.counter() == counted
