"""``--version-label``, ``--labels`` and ``--faults``: what a platform is tested with."""

import json
import re
import socket
import time
from http.client import HTTPConnection
from typing import cast

from prometheus_client.parser import text_string_to_metric_families

from config import VERSION
from handlers.faulty import EMPTY, STATUSES
from tests.support.here import Serve
from tests.support.page import number_on
from tests.support.program import Connect, read, seen
from tests.support.raw_http import reset
from tests.support.valkey import Valkey

JSON = {"Accept": "application/json"}


def test_version_and_labels_are_in_json_events_and_metrics(serve: Serve, connect: Connect) -> None:
    server = serve(LABELS='zone=eu-1,empty=,rule=a=b,place="Köln <b>" \\n', VERSION_LABEL="v1.2+b")
    labels = {"zone": "eu-1", "rule": "a=b", "place": '"Köln <b>" \\n'}
    told = json.loads(server.get("/", **JSON)[1])
    (replica,) = cast("list[dict[str, object]]", server.event()["replicas"])
    assert list(told) == ["name", "hostname", "version", "labels", "visits"]
    for one in told, replica:
        assert (one["version"], one["labels"]) == ("v1.2+b", labels)
    families = text_string_to_metric_families(server.get("/metrics")[1])
    info = {one.name: one.labels for family in families for one in family.samples}
    version = {"version": "v1.2+b", "program_version": VERSION}
    assert info["friendlyhello_info"] == version | labels
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


NOT_TO_BE_ASKED_FOR = [
    *("wait=", "wait=1", "wait=11s", "wait=%D9%A1s", "wait=1s&wait=1s", "wait=1s%0d%0aX-Y:z"),
    *("status=", "status=100", "status=199", "status=600", "status=x", "status=5003"),
    *("status=-503", "status=200&status=503", "status=%FF"),
]


def test_status_is_forced_and_not_counted_and_what_cannot_be_asked_for_is_400(
    serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    server = serve("--faults", "--access-log=false")
    client = connect(server)  # one connection: each answer ends where it says
    for method in ("GET", "HEAD"):
        for status in sorted(STATUSES - {200}):
            client.request(method, f"/?status={status}", headers=JSON)
            answer = client.getresponse()
            body = answer.read()
            assert (answer.status, answer.headers["Cache-Control"]) == (status, "no-store")
            if status in EMPTY:
                assert (body, answer.headers["Content-Type"]) == (b"", None)
            elif method == "GET":
                said = {"status": status, "title": answer.reason}
                line = f"{status} {answer.reason}\n"
                assert body.decode() == (json.dumps(said) if status >= 400 else line)
            if status == 405:
                assert answer.headers["Allow"] == "GET, HEAD"
    for query in NOT_TO_BE_ASKED_FOR:
        status, text = server.get(f"/?{query}")
        assert status == 400, query
        assert re.fullmatch(r"400 Bad Request: (wait|status) is [ -~]+\n", text), query
    assert valkey.counter() == 0
    assert server.get("/?status=200")[1].endswith("<b>Visits:</b> 1")
    assert server.get("/?status=503", method="POST") == (405, "405 Method Not Allowed\n")
    assert server.get("/healthz?status=503")[0] == 200
    text = server.get("/metrics")[1]
    assert 'friendlyhello_requests_total{code="418",method="GET",route="/"} 1.0' in text


def test_pages_wait_each_their_own_time_and_hold_nobody_up(serve: Serve, connect: Connect) -> None:
    server = serve("--faults", "--fault-wait=300ms-1s")
    clients = [connect(server) for _ in range(21)]
    begun = time.monotonic()
    for number, client in enumerate(clients):
        client.request("GET", "/" if number else "/?wait=1200ms")
    assert server.get("/?wait=0s")[1].endswith("<b>Visits:</b> 1")
    numbers = [number_on(client.getresponse().read()) for client in clients[1:]]
    assert time.monotonic() - begun > 0.29  # a clock may count milliseconds
    # They are counted in the order in which they have waited, not in that of their arrival.
    assert sorted(filter(None, numbers)) == list(range(2, 22)) != numbers
    assert number_on(clients[0].getresponse().read()) == 22
    assert 1.19 < time.monotonic() - begun < 8  # one after the other, they would take longer


def test_a_client_that_leaves_while_it_is_to_wait_is_not_counted_and_one_that_reads_on_is(
    serve: Serve, connect: Connect, valkey: Valkey
) -> None:
    server = serve("--faults", "--grace=30")

    def waiting(wait: str) -> HTTPConnection:
        client = connect(server)
        client.request("GET", f"/?wait={wait}")
        seen(connect(server))
        return client

    begun = time.monotonic()
    for leave in HTTPConnection.close, lambda one: reset(one.sock):
        leave(waiting("9s"))
        server.wait_for(rb"400 GET /")
        server.log = b""
    assert time.monotonic() - begun < 9
    assert valkey.counter() == 0
    half_closed = waiting("300ms")
    half_closed.sock.shutdown(socket.SHUT_WR)
    assert read(half_closed)[1].endswith("<b>Visits:</b> 1")
    in_flight = waiting("1s")
    server.signal()
    assert read(in_flight)[1].endswith("<b>Visits:</b> 2")
    server.stop()
    assert valkey.counter() == 2
