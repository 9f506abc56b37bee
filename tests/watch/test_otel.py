"""Traces: the program with OpenTelemetry's packages, which make them and write them out."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.ports import held_port
from tests.support.program import NOWHERE, Program, Start
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

Span = dict[str, Any]

BIN = ROOT / ".venv-otel/bin"
TRACED = (str(BIN / "opentelemetry-instrument"), str(BIN / "python"))
TRACES_ALONE = {
    "OTEL_SERVICE_NAME": "hello",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_PYTHON_TORNADO_EXCLUDED_URLS": "healthz,readyz,metrics",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
}

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not Path(TRACED[0]).exists():
        pytest.fail("OpenTelemetry is missing: make test-otel installs it", pytrace=False)


class Traced:
    """Starts the program with OpenTelemetry's packages, and returns what it wrote out."""

    def __init__(self, program: Start, output: Path) -> None:
        self._program = program
        self.output = output

    def __call__(self, *flags: str, **env: str) -> Program:
        env = TRACES_ALONE | {"OTEL_TRACES_EXPORTER": "console"} | env
        with self.output.open("w") as stdout:
            self.server = self._program(*flags, python=TRACED, stdout=stdout, **env)
        if NOWHERE not in flags:
            self.server.wait_for(b"counter on")
        return self.server

    def ended(self) -> list[Span]:
        self.server.stop()
        found, decoder, text = [], json.JSONDecoder(), self.output.read_text().strip()
        while text:
            span, end = decoder.raw_decode(text)
            found.append(span)
            text = text[end:].strip()
        return found


@pytest.fixture
def traced(program: Start, tmp_path: Path) -> Traced:
    return Traced(program, tmp_path / "spans")


def named(all_spans: list[Span], name: str) -> list[Span]:
    return [span for span in all_spans if span.get("name") == name]


def ids(context: dict[str, str]) -> tuple[str, str]:
    return context["trace_id"].removeprefix("0x"), context["span_id"].removeprefix("0x")


def test_a_visit_is_two_spans_and_lines_of_json_name_theirs(traced: Traced, valkey: Valkey) -> None:
    server = traced(f"--redis-url={valkey.url}", "--log-format=json")
    server.get("/", traceparent=f"00-{TRACE}-{PARENT}-01")
    server.get("/nothing")
    server.get("/healthz")  # which has no span
    made = traced.ended()
    (request,) = named(made, "GET /")
    (redis,) = named(made, "EVALSHA")
    assert (request["kind"], redis["kind"]) == ("SpanKind.SERVER", "SpanKind.CLIENT")
    assert request["context"]["trace_id"] == redis["context"]["trace_id"] == f"0x{TRACE}"
    assert request["parent_id"] == f"0x{PARENT}"
    assert redis["parent_id"] == request["context"]["span_id"]
    assert request["attributes"]["http.status_code"] == 200
    assert redis["attributes"]["db.system"] == "redis"
    assert redis["resource"]["attributes"]["service.name"] == "hello"
    assert request["start_time"] <= redis["start_time"] <= redis["end_time"]
    assert redis["end_time"] <= request["end_time"]

    lines = [json.loads(line) for line in server.log.splitlines()]
    logged = [one for one in lines if one["logger"] == "tornado.access"]
    of_requests = [span for span in made if span["kind"] != "SpanKind.CLIENT"]
    in_order = sorted(of_requests, key=lambda span: span["start_time"])
    named_in_log = [(one["trace_id"], one["span_id"]) for one in logged[:2]]
    assert named_in_log == [ids(span["context"]) for span in in_order]
    others = [*logged[2:], *(one for one in lines if one not in logged)]
    assert not any("trace_id" in one or "span_id" in one for one in others)


def test_requests_are_measured_by_the_stable_names_and_what_fails_is_told(traced: Traced) -> None:
    console = {"OTEL_METRICS_EXPORTER": "console", "OTEL_SEMCONV_STABILITY_OPT_IN": "http"}
    server = traced(NOWHERE, **console)
    assert server.visits() is None
    for path in ("/nothing", "/healthz"):
        server.get(path)
    server.get("/version", method="MADE-UP")
    written = traced.ended()
    (redis,) = named(written, "EVALSHA")
    assert redis["status"] == {"status_code": "ERROR", "description": "no number"}
    (request,) = named(written, "GET /")
    assert request["status"]["status_code"] == "UNSET"
    (measured,) = (
        metric
        for told in written
        for resource in told.get("resource_metrics", [])
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        if metric["name"] == "http.server.request.duration"
    )
    assert measured["unit"] == "s"
    found = {}
    for point in measured["data"]["data_points"]:
        assert point["explicit_bounds"][-1] == 10
        attributes = point["attributes"]
        labels = ("http.request.method", "http.route", "http.response.status_code")
        found[tuple(attributes.get(name) for name in labels)] = point["count"]
    assert found.pop(("_OTHER", "/version", 405)), "twice: it ended by an exception"
    assert found == {("GET", "/", 200): 1, ("GET", None, 404): 1}, "without the probes"


def test_workers_make_a_span_of_each_visit(traced: Traced, valkey: Valkey) -> None:
    flags = (f"--redis-url={valkey.url}", "--processes=2")
    server = traced(*flags, OTEL_BSP_SCHEDULE_DELAY="100")
    server.wait_for(b"(?s)counter on.*counter on")
    with ThreadPoolExecutor(8) as visitors:
        numbers = list(visitors.map(lambda _: server.visits(), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    for name in ("GET /", "EVALSHA"):  # what is not sent yet when a worker ends is lost
        wait_until(lambda name=name: traced.output.read_text().count(f'"name": "{name}"') == 40)
    made = traced.ended()
    requests = {span["context"]["span_id"] for span in named(made, "GET /")}
    assert {span["parent_id"] for span in named(made, "EVALSHA")} == requests


def test_without_its_variables_the_program_is_the_same(counting: Start, valkey: Valkey) -> None:
    server = counting(f"--redis-url={valkey.url}", python=(str(BIN / "python"),))
    assert server.visits() == 1


def test_spans_reach_a_collector(counting: Start, valkey: Valkey) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, body))
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Collector) as collector, ThreadPoolExecutor(1) as collecting:
        collector.timeout = PATIENCE
        collecting.submit(collector.handle_request)
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
        server = counting(f"--redis-url={valkey.url}", python=TRACED, **TRACES_ALONE | env)
        assert server.visits() == 1
        server.stop()
    [(path, sent)] = received
    assert path == "/v1/traces"
    assert all(word in sent for word in (b"hello", b"GET /", b"EVALSHA"))


def test_a_collector_that_is_away_holds_nothing_up(counting: Start, valkey: Valkey) -> None:
    with held_port() as nobody:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        }
        server = counting(f"--redis-url={valkey.url}", python=TRACED, **TRACES_ALONE | env)
        assert [server.visits() for _ in range(5)] == [1, 2, 3, 4, 5]
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 8
