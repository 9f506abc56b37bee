"""Traces: the program with OpenTelemetry's packages, which make them and write them out."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.ports import held_port
from tests.support.program import NOWHERE, Program, Start
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

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


def spans(text: str) -> Iterator[Span]:
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        span, end = decoder.raw_decode(text)
        yield span
        text = text[end:].strip()


class Traced:
    """Starts the program with OpenTelemetry's packages, and returns the spans that it made."""

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
        return list(spans(self.output.read_text()))


@pytest.fixture
def traced(program: Start, tmp_path: Path) -> Traced:
    return Traced(program, tmp_path / "spans")


def named(all_spans: list[Span], name: str) -> list[Span]:
    return [span for span in all_spans if span["name"] == name]


def test_a_visit_is_a_span_for_the_request_and_one_for_redis(
    traced: Traced, valkey: Valkey
) -> None:
    server = traced(f"--redis-url={valkey.url}")
    server.get("/", traceparent=f"00-{TRACE}-{PARENT}-01")
    server.get("/healthz")
    server.get("/", method="POST")
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
    assert not named(made, "GET /healthz")


def test_lines_of_json_name_the_span_in_which_they_were_logged(
    traced: Traced, valkey: Valkey
) -> None:
    server = traced(f"--redis-url={valkey.url}", "--log-format=json")
    for _ in range(2):
        server.visits()
    server.get("/nothing")
    server.get("/healthz")  # which has no span
    made = traced.ended()
    lines = [json.loads(line) for line in server.log.splitlines()]
    logged = [one for one in lines if one["logger"] == "tornado.access"]
    contexts = {
        span["start_time"]: span["context"] for span in made if span["kind"] != "SpanKind.CLIENT"
    }
    in_order = [contexts[time] for time in sorted(contexts)]
    assert [(one["trace_id"], one["span_id"]) for one in logged[:3]] == [
        tuple(context[name].removeprefix("0x") for name in ("trace_id", "span_id"))
        for context in in_order
    ]
    assert len(in_order) == 3
    others = [*logged[3:], *(one for one in lines if one not in logged)]
    assert not any("trace_id" in one or "span_id" in one for one in others)


def test_requests_are_measured_by_the_stable_names_when_asked(traced: Traced) -> None:
    stable = {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    }
    server = traced(NOWHERE, **stable)
    for path in ("/", "/", "/nothing", "/healthz"):
        server.get(path)
    server.get("/version", method="MADE-UP")
    *_, last = traced.ended()
    metrics = {
        metric["name"]: metric
        for resource in last["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    }
    measured = metrics["http.server.request.duration"]
    assert measured["unit"] == "s"
    found = {}
    for point in measured["data"]["data_points"]:
        assert point["explicit_bounds"][-1] == 10
        attributes = point["attributes"]
        labels = ("http.request.method", "http.route", "http.response.status_code")
        found[tuple(attributes.get(name) for name in labels)] = point["count"]
    assert found.pop(("_OTHER", "/version", 405)), "twice: it ended by an exception"
    assert found == {("GET", "/", 200): 2, ("GET", None, 404): 1}, "without the probes"


def test_visits_that_workers_count_together_have_each_a_span_of_its_own(
    traced: Traced, valkey: Valkey
) -> None:
    flags = (f"--redis-url={valkey.url}", "--processes=2")
    server = traced(*flags, OTEL_BSP_SCHEDULE_DELAY="100")
    server.wait_for(b"(?s)counter on.*counter on")
    with ThreadPoolExecutor(8) as visitors:
        numbers = list(visitors.map(lambda _: server.visits(), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    # What is not sent yet when a worker ends is lost.
    wait_until(lambda: traced.output.read_text().count('"name": "GET /"') == 40)
    wait_until(lambda: traced.output.read_text().count('"name": "EVALSHA"') == 40)
    made = traced.ended()
    requests = {span["context"]["span_id"] for span in named(made, "GET /")}
    assert {span["parent_id"] for span in named(made, "EVALSHA")} == requests


def test_a_visit_without_a_number_is_an_error_of_its_span(traced: Traced) -> None:
    assert traced(NOWHERE).visits() is None
    made = traced.ended()
    (redis,) = named(made, "EVALSHA")
    assert redis["status"] == {"status_code": "ERROR", "description": "no number"}
    (request,) = named(made, "GET /")
    assert request["status"]["status_code"] == "UNSET"


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

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        collecting = Thread(target=collector.serve_forever, daemon=True)
        collecting.start()
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
        server = counting(f"--redis-url={valkey.url}", python=TRACED, **TRACES_ALONE | env)
        assert server.visits() == 1
        server.stop()
        collector.shutdown()
        collecting.join()
    assert {path for path, _ in received} == {"/v1/traces"}
    sent = b"".join(body for _, body in received)
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
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - begun < 8
