"""``check.py``: what it reports is what happened, and its exit status says whether all is well."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest

from audit.load import Load, Visit
from audit.plot import draw
from audit.report import Judgement, Report
from tests.support import ROOT
from tests.support.program import Program
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

Start = Callable[..., Program]
Answer = Callable[[int], tuple[int, str]]


def check(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "check.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture
def answering() -> Iterator[Callable[[Answer], str]]:
    """Serve what a function gives for the n-th request, and return the URL."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Answer) -> str:
        numbers = iter(range(1, 10**9))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(next(numbers))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header(
                    "Content-Type", "application/json" if body[:1] in "[{" else "text/html"
                )
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def page(number: int | None, hostname: str = "a") -> tuple[int, str]:
    return 200, json.dumps({"name": "x", "hostname": hostname, "visits": number})


def test_a_sound_server_passes_and_every_number_is_seen(valkey: Valkey, program: Start) -> None:
    server = program(f"--redis-url={valkey.url}")
    for flags in ([], ["--keep-alive"]):
        before = valkey.counter() or 0
        result = check(server.url, "--requests=300", "--concurrency", "8", "--exclusive", *flags)
        assert (result.returncode, result.stderr) == (0, "")
        assert f"{before + 1:,} to {before + 300:,}" in result.stdout
        assert "300 visits in" in result.stdout
        assert "The audit holds." in result.stdout
        assert valkey.counter() == before + 300


def test_a_connection_serves_one_visit_unless_asked_to_keep_it(
    valkey: Valkey, program: Start
) -> None:
    server = program(f"--redis-url={valkey.url}")
    for flags, made in (([], 40), (["--keep-alive"], 5)):
        with Proxy([server.port]) as proxy:
            check(f"http://127.0.0.1:{proxy.port}", "--requests=40", "--concurrency=4", *flags)
            assert proxy.accepted == made


def test_replicas_behind_a_balancer_are_told_apart(
    answering: Callable[[Answer], str],
) -> None:
    url = answering(lambda n: page(n, "abc"[n % 3]))
    result = check(url, "--requests=90", "--json")
    assert json.loads(result.stdout)["replicas"] == {"a": 30, "b": 30, "c": 30}


def test_three_servers_sharing_a_valkey_lose_no_number_when_one_drains(
    valkey: Valkey, program: Start
) -> None:
    servers = [program(f"--redis-url={valkey.url}") for _ in range(3)]
    with Proxy([server.port for server in servers]) as balancer:
        load = Load(f"http://127.0.0.1:{balancer.port}", requests=1500, concurrency=8)
        thread = threading.Thread(target=lambda: asyncio.run(load.run()))
        thread.start()
        wait_until(lambda: len(load.visits) > 500)
        servers[0].signal()
        thread.join()
    report = Report(load.visits, load.now, Judgement(exclusive=True))
    assert report.problems == [], report.as_text()
    assert report.counted == 1500 == valkey.counter()


def test_a_number_shown_twice_fails_the_audit(answering: Callable[[Answer], str]) -> None:
    url = answering(lambda n: page(max(1, n - 1)))
    result = check(url, "--requests=10")
    assert result.returncode == 1
    assert "shown twice          1: 1\n" in result.stdout
    assert "FAILED: 1 number shown twice." in result.stdout


def test_a_missing_number_fails_the_audit_only_when_nobody_else_visits(
    answering: Callable[[Answer], str],
) -> None:
    url = answering(lambda n: page(2 * n if n < 5 else n + 10))
    assert check(url, "--requests=8").returncode == 0
    again = answering(lambda n: page(2 * n if n < 5 else n + 10))
    result = check(again, "--requests=8", "--exclusive")
    assert result.returncode == 1
    assert "missing              9: 3, 5, 7, 9–14\n" in result.stdout


def test_the_fallback_page_is_uncounted_but_no_failure(answering: Callable[[Answer], str]) -> None:
    url = answering(lambda n: page(None))
    report = json.loads(check(url, "--requests=5", "--json").stdout)
    assert report["holds"] is True
    assert report["visits"] == {"made": 5, "counted": 0, "uncounted": 5, "failed": 0}
    assert report["numbers"]["lowest"] is None


@pytest.mark.parametrize(("allowed", "status"), [("3", 0), ("2", 1)])
def test_failures_beyond_those_allowed_fail_the_audit(
    allowed: str, status: int, answering: Callable[[Answer], str]
) -> None:
    url = answering(lambda n: (503, "") if n in (1, 4, 6) else page(n))
    result = check(url, "--requests=8", "--json", f"--max-failures={allowed}")
    assert json.loads(result.stdout)["failures"] == {"status 503": 3}
    assert result.returncode == status


def test_each_kind_of_failure_is_named(folder: Path, answering: Callable[[Answer], str]) -> None:
    def kinds(url: str, *flags: str) -> dict[str, int]:
        result = check(url, "--requests=3", "--json", "--timeout=0.3", *flags)
        return dict(json.loads(result.stdout)["failures"])

    with Proxy([folder / "nobody"]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        assert set(kinds(url)) <= {"closed without an answer", "reset"}
    assert kinds(url) == {"refused": 3}
    assert kinds("http://no-such-host.invalid") == {"name not resolved": 3}
    assert kinds(answering(lambda n: (time.sleep(1), page(n))[1])) == {"timeout": 3}
    seen = kinds(answering(lambda n: page(n) if n == 1 else (200, "<html>")))
    assert seen == {"not friendlyhello's JSON": 2}


@pytest.mark.parametrize(
    "answer",
    [
        (404, "nothing"),
        (200, "<html>"),
        (200, "<html>" + 100_000 * "x"),
        (200, "[]"),
        (200, '{"visits": 1}'),
    ],
    ids=["404", "HTML", "large", "list", "other JSON"],
)
def test_what_is_not_friendlyhello_is_said_in_one_line(
    answer: tuple[int, str], answering: Callable[[Answer], str]
) -> None:
    url = answering(lambda n: answer)
    result = check(url)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"check.py: {url} does not answer as friendlyhello does: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("localhost:4000",),
        ("ftp://h",),
        ("http://",),
        ("http://h:x",),
        ("http://h:99999",),
        ("http://a b",),
        ("http://h\n",),
        ("http://h", "--requests=0"),
        ("http://h", "--requests=many"),
        ("http://h", "--duration=-1"),
        ("http://h", "--duration=nan"),
        ("http://h", "--concurrency=10001"),
        ("http://h", "--max-failures=-1"),
        ("http://h", "--plot=/no/such/folder/x.svg"),
        ("http://h", "--unknown"),
        ("http://h", "another"),
    ],
)
def test_a_bad_argument_is_said_in_one_line(arguments: tuple[str, ...]) -> None:
    result = check(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("check.py: ")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_ends_early_and_still_reports(valkey: Valkey, program: Start) -> None:
    server = program(f"--redis-url={valkey.url}")
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), server.url, "--duration=60", "--exclusive"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: (valkey.counter() or 0) > 50)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert f"lowest to highest    1 to {valkey.counter():,}" in out


def test_a_second_ctrl_c_ends_while_a_visit_hangs(answering: Callable[[Answer], str]) -> None:
    asked, release = threading.Event(), threading.Event()
    url = answering(lambda n: (asked.set(), release.wait(30), page(n))[2])
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), url, "--timeout=60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert asked.wait(10)
        while process.poll() is None:  # the first of them waits for the visit
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        out, err = process.communicate(timeout=20)
        release.set()
    assert (process.returncode, out) == (130, "")
    assert err == "check.py: interrupted, no report\n"


def test_a_duration_ends_the_load(answering: Callable[[Answer], str]) -> None:
    report = json.loads(check(answering(page), "--duration=0.5", "--json").stdout)
    assert report["visits"]["made"] > 5
    assert 0.4 < report["seconds"] < 3


def test_a_rate_is_kept(answering: Callable[[Answer], str]) -> None:
    report = json.loads(check(answering(page), "--duration=1", "--rate=50", "--json").stdout)
    assert 10 < report["visits"]["made"] <= 51


def test_the_progress_is_shown_where_somebody_looks(answering: Callable[[Answer], str]) -> None:
    reading, writing = os.openpty()
    termios.tcsetwinsize(writing, (24, 120))
    seen = b""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), answering(page), "--requests=1000", "--json"],
        stdout=subprocess.PIPE,
        stderr=writing,
    ) as process:
        os.close(writing)
        with contextlib.suppress(OSError):  # the end of a terminal
            while chunk := os.read(reading, 65536):
                seen += chunk
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
    os.close(reading)
    assert b"visits" in seen
    assert b"0 failed" in seen
    assert report["visits"]["made"] == 1000


def test_the_longest_stretch_without_a_counted_visit_is_an_outage() -> None:
    visits = [Visit(i / 10, 0.01, "a", i + 1) for i in range(10)]
    visits += [Visit(0.95 + i / 10, 0.01, "a") for i in range(20)]
    visits += [Visit(3 + i / 10, 0.01, "a", i + 11) for i in range(10)]
    report = Report(visits, 4.0)
    start, end = report.stretch
    assert (round(start, 3), round(end, 3)) == (0.91, 3.01)


def test_latencies_are_those_of_the_answered_visits() -> None:
    visits = [Visit(0, i / 1000, "a", i) for i in range(1, 101)]
    report = Report([*visits, Visit(0, 9.0, failure="timeout")], 9.0)
    shares = {share: report.latency(share) for share in (0.5, 0.9, 0.99, 1.0)}
    assert shares == {0.5: 0.05, 0.9: 0.09, 0.99: 0.099, 1.0: 0.1}


def test_the_plot_has_each_replica_and_marks_failures(folder: Path, valkey: Valkey) -> None:
    visits = [Visit(i / 100, 0.002, f"<{'ab'[i % 2]}>", i + 1) for i in range(300)]
    visits += [Visit(1.5, 0.1, failure="refused"), Visit(1.6, 0.1, "<a>")]
    svg = ElementTree.fromstring(draw(visits, 3.0))
    texts = [text for element in svg.iter() if (text := element.text)]
    assert {"<a>", "<b>", "1 failed", "1 uncounted"} <= set(texts)
    assert draw([], 0.0).startswith("<svg")


def test_the_plot_is_written_to_the_file(folder: Path, answering: Callable[[Answer], str]) -> None:
    file = folder / "load.svg"
    assert check(answering(page), "--requests=50", f"--plot={file}").returncode == 0
    assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_help_says_what_the_exit_statuses_mean() -> None:
    result = check("--help")
    assert result.returncode == 0
    assert "exit status:" in result.stdout
