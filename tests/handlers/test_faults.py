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
from tests.support.program import Connect, ask, read, seen
from tests.support.raw_http import open_to
from tests.support.valkey import Valkey

JSON = {"Accept": "application/json"}


def test_version_is_in_json_in_every_answer_and_in_the_metrics(
    serve: Serve, connect: Connect
) -> None:
    server = serve(VERSION_LABEL="v1.2+blue")
    client = connect(server)
    for method, path in (
        *(("GET", "/"), ("HEAD", "/"), ("POST", "/"), ("GET", "/nothing")),
        *(("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("BREW", "/")),
    ):
        client.request(method, path, headers=JSON)
        answer = client.getresponse()
        body = answer.read()
        assert answer.headers.get_all("X-App-Version") == ["v1.2+blue"], path
        if (method, path) == ("GET", "/"):
            assert list(json.loads(body)) == ["name", "hostname", "version", "visits"]
            assert json.loads(body)["version"] == "v1.2+blue"
    assert (
        f'_info{{program_version="{VERSION}",version="v1.2+blue"}} 1.0\n'
        in server.get("/metrics")[1]
    )
    assert "v1.2" not in server.get("/")[1]
    # An answer that the HTTP server gives by itself.
    with open_to(server) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert b"\r\nX-App-Version: v1.2+blue\r\n" in raw.recv(65536)


def test_labels_are_in_json_in_the_events_and_in_the_metrics(serve: Serve) -> None:
    server = serve(LABELS='zone=eu-1,empty=,rule=a=b,place="Köln <b>" \\n', VERSION_LABEL="blue")
    labels = {"zone": "eu-1", "rule": "a=b", "place": '"Köln <b>" \\n'}
    answer = json.loads(server.get("/", **JSON)[1])
    assert list(answer) == ["name", "hostname", "version", "labels", "visits"]
    assert answer["labels"] == labels
    (info,) = (
        sample
        for family in text_string_to_metric_families(server.get("/metrics")[1])
        for sample in family.samples
        if sample.name == "friendlyhello_info"
    )
    assert info.labels == {"version": "blue", "program_version": VERSION, **labels}
    (replica,) = cast("list[dict[str, object]]", server.event()["replicas"])
    assert (replica["version"], replica["labels"]) == ("blue", labels)
    assert "eu-1" not in server.get("/")[1], "the page's bytes are the same for all"


def test_without_them_nothing_names_a_version_or_asks_for_a_fault(
    serve: Serve, connect: Connect
) -> None:
    server = serve()
    client = connect(server)
    client.request("GET", "/", headers=JSON)
    answer = client.getresponse()
    assert list(json.loads(answer.read())) == ["name", "hostname", "visits"]
    assert "X-App-Version" not in answer.headers
    (replica,) = cast("list[dict[str, object]]", server.event()["replicas"])
    assert not replica.keys() & {"version", "labels"}
    begun = time.monotonic()
    for number, query in enumerate(("wait=9s", "status=503", "wait=x&status=y"), 2):
        status, page = server.get(f"/?{query}", X_Fault_Rate="1")
        assert (status, page[-1]) == (200, str(number))
    assert time.monotonic() - begun < 9
    for method in ("GET", "PUT"):
        client.request(method, "/faults", body=b'{"rate": 1}')
        assert read(client) == (404, "404 Not Found\n")
    assert ask(client) == (200, '{"status": "ok"}')


def test_wait_delays_an_answer_that_is_counted(serve: Serve) -> None:
    server = serve(FAULTS="true")
    for number, (text, seconds) in enumerate((("250ms", 0.25), ("0.3s", 0.3), ("0s", 0)), 1):
        begun = time.monotonic()
        status, page = server.get(f"/?wait={text}")
        assert time.monotonic() - begun > seconds - 0.01  # a clock may count milliseconds
        assert (status, page[-1]) == (200, str(number))


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


def reset(client: HTTPConnection) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def test_a_client_that_leaves_while_it_is_to_wait_is_not_counted(
    serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    server = serve("--faults")
    for leave in (HTTPConnection.close, reset):
        client = connect(server)
        client.request("GET", "/?wait=9s")
        seen(connect(server))
        begun = time.monotonic()
        leave(client)
        server.wait_for(rb"400 GET /\?wait=9s")
        assert time.monotonic() - begun < 9
        server.log = b""
    assert valkey.counter() == 0
    assert server.visits() == 1


@pytest.mark.parametrize("whole_replica", [False, True])
def test_a_client_that_closes_its_side_while_it_is_to_wait_is_shown_the_page(
    whole_replica: bool, serve: Serve, connect: Connect
) -> None:
    server = serve("--faults", *(["--fault-wait=300ms"] if whole_replica else []))
    client = connect(server)
    client.request("GET", "/" if whole_replica else "/?wait=300ms")
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


def test_many_wait_at_once_and_hold_nobody_up(
    serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    server = serve("--faults", "--access-log=false")
    waiting = [connect(server) for _ in range(50)]
    for client in waiting:
        client.request("GET", "/?wait=500ms")
    assert ask(connect(server), "/")[0] == 200
    numbers = [int(read(client)[1].rpartition("</b> ")[2]) for client in waiting]
    assert len(set(numbers)) == 50
    assert valkey.counter() == 51
