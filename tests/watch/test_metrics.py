"""``GET /metrics``: what is counted, in one process and in several, whatever clients ask for."""

import asyncio
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families
from tornado.web import RequestHandler

from config import VERSION
from counter import Visits
from handlers import route_names
from handlers.metrics import TEXT_SECONDS
from server import make_app
from tests.support import Patch
from tests.support.before import run_before
from tests.support.here import Serve
from tests.support.processes import children
from tests.support.program import NOWHERE, Connect, Site, Start, ask
from tests.support.program import read as read_answer
from tests.support.raw_http import talk
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until
from watch.exposition import Exposition
from watch.metrics import CODES, FAULTS, MAX_ROUTES, METHODS, REASONS, Metrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def _always_new(monkeypatch: Patch) -> None:
    """Let each scrape have a text of its own."""
    monkeypatch.setattr("handlers.metrics.TEXT_SECONDS", 0)


def scrape(server: Site) -> Samples:
    """Every sample of a scrape, by its name and labels."""
    status, text = server.get("/metrics")
    assert status == 200
    return read(text)


def read(text: str | Metrics) -> Samples:
    """Every sample of a text, or of what was counted here."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in (text_families(text) if isinstance(text, str) else Exposition(text).collect())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"friendlyhello_{name}", frozenset(labels.items())), 0.0)


def requests_in(samples: Samples) -> dict[tuple[str, str, str], float]:
    """How often each route was asked for, with each method and answer."""
    return {
        (labels["route"], labels["method"], labels["code"]): number
        for (name, pairs), number in samples.items()
        if name == "friendlyhello_requests_total" and (labels := dict(pairs))
    }


def test_visits_and_requests_are_counted(serve: Serve) -> None:
    server = serve()
    [refusal] = talk(server, b"nonsense\r\n\r\n")  # what the HTTP server refuses is no request
    assert refusal.status == 400
    for _ in range(3):
        server.visits()
    for path, method in (("/", "HEAD"), ("/", "POST"), ("/healthz", "GET"), ("/nothing", "GET")):
        server.get(path, method)
    samples = scrape(server)
    answered = {
        **{("/", "GET", "200"): 3, ("/", "HEAD", "200"): 1, ("/", "POST", "405"): 1},
        **{("/healthz", "GET", "200"): 1, ("other", "GET", "404"): 1},
    }
    assert requests_in(samples) == answered  # the scrape is not answered yet when it looks
    assert requests_in(scrape(server)) == answered | {("/metrics", "GET", "200"): 1}
    assert value(samples, "visits_total") == value(samples, "visits_per_command_sum") == 3
    assert value(samples, "request_seconds_count", route="/") == 5
    assert 0 < value(samples, "request_seconds_sum", route="/") < 60
    assert value(samples, "redis_roundtrip_seconds_count") == 3
    assert 0 < value(samples, "redis_roundtrip_seconds_sum") < 60
    assert value(samples, "redis_up") == 1
    assert value(samples, "info", version="", program_version=VERSION) == 1


def test_buckets_are_cumulative_and_hold_what_they_say() -> None:
    metrics = Metrics()
    for visits, seconds in ((1, 0.00005), (2, 0.0001), (3, 0.3), (9000, 99.0)):
        metrics.counted(visits, seconds)
    samples, trip, group = read(metrics), "redis_roundtrip_seconds", "visits_per_command"
    for le, number in (("0.0001", 2), ("0.2", 2), ("0.5", 3), ("2.5", 3), ("+Inf", 4)):
        assert value(samples, f"{trip}_bucket", le=le) == number
    for le, number in (("1.0", 1), ("2.0", 2), ("4.0", 3), ("8192.0", 3), ("+Inf", 4)):
        assert value(samples, f"{group}_bucket", le=le) == number
    assert value(samples, f"{trip}_sum") == pytest.approx(99.30015)
    assert value(samples, f"{group}_sum") == 9006


def test_labels_are_bounded_whatever_is_asked_for(serve: Serve, connect: Connect) -> None:
    server = serve("--access-log=false")
    client = connect(server)
    letters = random.Random(6)
    for _ in range(300):
        word = "".join(letters.choices('abc/.%2"{}\\', k=letters.randint(1, 30)))
        method = "".join(letters.choices("ABCGET", k=letters.randint(1, 20)))
        client.request(letters.choice([method, "GET", "POST"]), f"/{word}")
        read_answer(client)
    samples = scrape(server)
    rules = make_app().wildcard_router.rules
    allowed: dict[str, set[str]] = {
        "route": {*route_names(rules).values(), "other"},  # type: ignore[arg-type]
        **{"method": {*METHODS}, "code": {*CODES}, "reason": {*REASONS}, "kind": {*FAULTS}},
        **{"version": {""}, "program_version": {VERSION}},
    }
    for name, labels in samples:
        assert all(label == "le" or text in allowed[label] for label, text in labels), name
    others = [number for (route, *_), number in requests_in(samples).items() if route == "other"]
    assert (sum(others), len(others) <= 3) == (300, True)  # GET, POST, other; all of them 404


def test_a_routing_table_that_does_not_fit_is_refused() -> None:
    metrics = Metrics()
    routes = {type(f"Handler{n}", (RequestHandler,), {}): f"/{n}" for n in range(MAX_ROUTES)}
    with pytest.raises(ValueError, match="routes"):
        metrics.know_routes(routes)
    routes.popitem()
    metrics.know_routes(routes)


def test_redis_going_and_coming_back_is_seen_with_the_reasons(serve: Serve, valkey: Valkey) -> None:
    server = serve("--redis-timeout=1")

    def told() -> tuple[float, str, bool]:
        ready = json.loads(server.get("/readyz")[1])
        why = ready.get("refusal", "")
        return value(scrape(server), "exactly_once"), ready["counting"], "'evalsha'" in why

    assert server.visits() == 1
    assert told() == (1, "exactly once", False)
    valkey.client.acl_setuser("default", enabled=True, commands=["-evalsha"])
    assert server.visits() == 2
    assert told() == (0, "at most once", True)
    valkey.hang()
    assert [server.visits(), server.visits()] == [None, None]
    samples = scrape(server)
    assert value(samples, "redis_up") == 0
    for reason in ("timeout", "off"):
        assert value(samples, "visits_uncounted_total", reason=reason) == 1
    valkey.go_on()
    wait_until(lambda: value(scrape(server), "redis_up") == 1)
    assert server.visits()
    valkey.client.set("counter", "no number")
    assert server.visits() is None
    samples = scrape(server)
    assert value(samples, "redis_up") == 0
    assert value(samples, "visits_uncounted_total", reason="error") == 1
    assert value(samples, "visits_total") == 3


def test_visits_that_are_too_many_or_meet_the_end_are_counted_so(valkey: Valkey) -> None:
    async def visit() -> Samples:
        metrics = Metrics()
        visits = Visits(valkey.url, timeout=PATIENCE, max_waiting=2, observer=metrics)
        valkey.hang()
        waiting = [asyncio.create_task(visits.count()) for _ in range(5)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await visits.close()
        assert await asyncio.gather(*waiting) == [None] * 5
        return read(metrics)

    samples = asyncio.run(visit())
    assert value(samples, "visits_uncounted_total", reason="crowded") == 3
    assert value(samples, "visits_uncounted_total", reason="stopping") == 2


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_any_worker_tells_of_all(
    program: Start, connect: Connect, valkey: Valkey, tmp_path: Path
) -> None:
    soon = "import handlers.metrics, watch.metrics as w; handlers.metrics.TEXT_SECONDS = 0"
    env = run_before(tmp_path, f"{soon}; w.SHARE_EVERY = 0.05")
    # No visit that waits for Redis is answered by its deadline.
    patient = (f"--redis-timeout={PATIENCE}", "--access-log=false")
    server = program(f"--redis-url={valkey.url}", "--processes=2", *patient, **env)
    server.wait_for(b"(?s)counter on.*counter on", PATIENCE)
    with ThreadPoolExecutor(10) as visitors:
        list(visitors.map(lambda _: server.visits(), range(60)))

    def counted() -> float:
        samples = scrape(server)
        assert value(samples, "visits_total") == 60
        return requests_in(samples)["/", "GET", "200"]

    # Each scrape is on a connection of its own, so of either worker; they hear of one another.
    for _ in range(8):
        wait_until(lambda: counted() == 60)
    # Both of them, whichever answers: one alone has had less.
    wait_until(lambda: value(scrape(server), "redis_up") == 1)
    one = min(map(resident, children(server.process.pid)))
    wait_until(lambda: scrape(server)["process_resident_memory_bytes", frozenset()] > 1.8 * one)

    idle = [connect(server) for _ in range(40)]
    for client in idle:
        ask(client)
    wait_until(lambda: value(scrape(server), "connections") == 41)
    for client in idle[30:]:
        client.close()
    wait_until(lambda: value(scrape(server), "connections") == 31)
    victim = max(children(server.process.pid), key=lambda pid: len(os.listdir(f"/proc/{pid}/fd")))
    os.kill(victim, signal.SIGKILL)  # which has most of the connections
    server.wait_for(b"(?s)starting another.*counter o", PATIENCE)
    assert value(scrape(server), "visits_total") == 60
    wait_until(lambda: value(scrape(server), "connections") < 31)
    assert value(scrape(server), "visits_total") == 60


def test_what_processes_tell_is_summed_and_a_new_process_has_no_gauges() -> None:
    metrics = Metrics(processes=2)
    for take in (lambda: metrics.take(0), lambda: metrics.take(1), metrics.lead):
        take()
        metrics.log_lines_dropped(2)
    samples = read(metrics)
    assert value(samples, "log_lines_dropped_total") == 6  # those of the parent, too
    assert metrics.pids() == [os.getpid()] * 2  # the parent serves nothing
    assert value(samples, "redis_up") == 0

    watchers = 3
    metrics.take(0)
    metrics.gauge("live_watchers", lambda: watchers)
    states = ("redis_up", "exactly_once")
    for state in states:
        metrics.gauge(state, lambda: watchers > 0)
    for now, slot, told, of_all in ((4, 1, 4, 0), (4, 0, 8, 1), (0, 0, 4, 0)):
        watchers = now
        metrics.take(slot)  # as another process does, which looks at its own alone
        samples = read(metrics)
        assert value(samples, "live_watchers") == told
        assert [value(samples, state) for state in states] == [of_all] * 2


TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: What is asked for, and what is answered.
FORMS = {
    "": TEXT,
    # What Prometheus sends: 2.42, the same with native histograms, and 3.
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1": OPENMETRICS,
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;"
    "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1": OPENMETRICS,
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2":
        OPENMETRICS,
    # And with scrape_protocols: [PrometheusText0.0.4, OpenMetricsText1.0.0].
    "text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0;q=0.2,*/*;q=0.1":
        TEXT,
    # The weights decide.
    "application/openmetrics-text;version=1.0.0;q=0.1, text/plain;q=0.9": TEXT,
    # The closer range decides.
    "text/plain;q=0.9, application/openmetrics-text, "
    "application/openmetrics-text;version=1.0.0;q=0.1": TEXT,
    # A value may be quoted (RFC 9110, 5.6.6).
    'application/openmetrics-text;version="1.0.0"': OPENMETRICS,
    # A version that is not written is not claimed.
    "application/openmetrics-text;version=9.9.9": TEXT,
    "text/plain;version=1.0.0;escaping=allow-utf-8": TEXT,
}  # fmt: skip


def test_the_form_is_the_one_that_is_preferred(served: Serve, connect: Connect) -> None:
    client = connect(served(NOWHERE, "--access-log=false"))
    for accept, content_type in FORMS.items():
        client.request("GET", "/metrics", headers={"Accept": accept})
        answer = client.getresponse()
        text = answer.read().decode()
        headers = [answer.headers[name] for name in ("Content-Type", "Cache-Control", "Vary")]
        assert (answer.status, headers) == (200, [content_type, "no-store", "Accept"]), accept
        assert text.endswith("# EOF\n") is (content_type == OPENMETRICS)
        parse = openmetrics_families if content_type == OPENMETRICS else text_families
        families = list(parse(text))
        names = {family.name for family in families}
        assert {name for name in names if not name.startswith("friendlyhello")} == {
            *("process_virtual_memory_bytes", "process_resident_memory_bytes"),
            *("process_start_time_seconds", "process_open_fds", "process_max_fds"),
            "process_cpu_seconds",
        }
        assert all(family.documentation for family in families)


def test_a_text_is_made_once_a_second_however_many_ask(serve: Serve, monkeypatch: Patch) -> None:
    monkeypatch.setattr("handlers.metrics.TEXT_SECONDS", TEXT_SECONDS)
    server = serve()
    assert value(scrape(server), "visits_total") == 0
    server.visits()
    begun = time.monotonic()
    texts = {server.get("/metrics")[1] for _ in range(200)}
    assert len(texts) <= 2 + (time.monotonic() - begun) / TEXT_SECONDS
    wait_until(lambda: value(scrape(server), "visits_total") == 1)
