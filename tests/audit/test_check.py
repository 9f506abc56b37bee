"""``check.py``: what it reports is what happened, and its exit status says whether all is well."""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trustme

from audit.load import Load, Visit
from audit.plot import draw
from audit.report import Judgement, Most, Report
from tests.audit.auditing import Answer, check, page, refused, run_check
from tests.support import ROOT
from tests.support.before import run_before
from tests.support.ports import held_port
from tests.support.program import Program
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

Start = Callable[..., Program]

#: For a program whose visits all count, as they do not where a busy machine lets a deadline pass.
NO_HURRY = "--redis-timeout=60"


def test_a_sound_server_passes_and_every_number_is_seen(valkey: Valkey, counting: Start) -> None:
    server = counting(f"--redis-url={valkey.url}", NO_HURRY)
    for flags in ([], ["--keep-alive"]):
        before = valkey.counter()
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
    valkey: Valkey, counting: Start
) -> None:
    servers = [counting(f"--redis-url={valkey.url}", NO_HURRY) for _ in range(3)]
    with Proxy([server.port for server in servers]) as balancer:
        load = Load(f"http://127.0.0.1:{balancer.port}", requests=300, concurrency=8)
        thread = threading.Thread(target=lambda: asyncio.run(load.run()))
        thread.start()
        try:
            wait_until(lambda: len(load.visits) > 100)
            servers[0].signal()
        finally:
            thread.join()
    report = Report(load.visits, load.now, Judgement(exclusive=True))
    assert report.problems == [], report.as_text()
    assert report.counted == 300 == valkey.counter()


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


def test_an_audit_in_which_no_visit_got_a_number_fails(answering: Callable[[Answer], str]) -> None:
    url = answering(lambda n: page(None))
    result = check(url, "--requests=5", "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["holds"]) == (1, False)
    assert report["problems"] == ["no visit got a number, so nothing was checked"]
    assert report["visits"] == {"made": 5, "counted": 0, "uncounted": 5, "failed": 0}
    assert report["numbers"]["lowest"] is None


@pytest.mark.parametrize(
    ("allowed", "problem"),
    [
        (None, None),
        ("3", None),
        ("2", "3 visits uncounted, allowed 2"),
        ("0", "3 visits uncounted, allowed 0"),
        ("37.5%", None),
        ("37.4%", "3 visits uncounted, allowed 37.4%"),
    ],
)
def test_uncounted_visits_are_no_failure_until_they_are_bounded(
    allowed: str | None, problem: str | None
) -> None:
    visits = [Visit(n, 0.1, "a", None if n in (1, 4, 6) else n) for n in range(8)]
    judgement = Judgement(max_uncounted=Most.of(allowed) if allowed else None)
    assert Report(visits, 8.0, judgement).problems == ([problem] if problem else [])


def test_the_bound_of_uncounted_visits_is_an_option(answering: Callable[[Answer], str]) -> None:
    url = answering(lambda n: page(None if n == 2 else n))
    result = check(url, "--requests=8", "--max-uncounted=10%")
    assert result.returncode == 1
    assert result.stdout.endswith("FAILED: 1 visit uncounted, allowed 10%.\n")


@pytest.mark.parametrize(("allowed", "status"), [("3", 0), ("2", 1)])
def test_failures_beyond_those_allowed_fail_the_audit(
    allowed: str, status: int, answering: Callable[[Answer], str]
) -> None:
    url = answering(lambda n: (503, "") if n in (1, 4, 6) else page(n))
    result = check(url, "--requests=8", "--json", f"--max-failures={allowed}")
    assert json.loads(result.stdout)["failures"] == {"status 503": 3}
    assert result.returncode == status


def test_the_dot_at_a_names_end_is_not_the_certificates(folder: Path, program: Start) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("audited.invalid").configure_cert(tls)
    code = """
from tests.support.names import Names
Names({name: ["127.0.0.1"] for name in ("audited.invalid.", "other.invalid.")}).install()
"""
    env = os.environ | run_before(folder, code) | {"SSL_CERT_FILE": str(folder / "ca.pem")}

    with Proxy([program().port], tls) as proxy:

        def failures(name: str) -> dict[str, int]:
            result = run_check(f"https://{name}:{proxy.port}", "--requests=3", "--json", env=env)
            return dict(json.loads(result.stdout)["failures"])

        assert failures("audited.invalid.") == {}
        assert failures("other.invalid.") == {
            "certificate not trusted: Hostname mismatch, certificate is not valid for "
            "'other.invalid'": 3
        }


def test_each_kind_of_failure_is_named(folder: Path, answering: Callable[[Answer], str]) -> None:
    def kinds(url: str, *flags: str, env: dict[str, str] | None = None) -> dict[str, int]:
        arguments = (url, "--requests=3", "--json", f"--timeout={PATIENCE}", *flags)
        result = check(*arguments) if env is None else run_check(*arguments, env=env)
        return dict(json.loads(result.stdout)["failures"])

    with Proxy([folder / "nobody"]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        assert set(kinds(url)) <= {"closed without an answer", "reset"}
    with held_port() as nobodys:
        assert kinds(f"http://127.0.0.1:{nobodys.getsockname()[1]}") == {"refused": 3}
    # The resolver is to give up soon, where it has nobody to ask (resolv.conf(5)).
    hasty = os.environ | {"RES_OPTIONS": "timeout:1 attempts:1"}
    assert kinds("http://no-such-host.invalid.", env=hasty) == {"name not resolved": 3}
    release = threading.Event()
    url = answering(lambda n: (release.wait(), page(n))[1])
    try:
        assert kinds(url, "--timeout=0.3") == {"timeout": 3}
    finally:
        release.set()
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
        ("http://a..b",),
        ("http://h\n",),
        ("http://h", "--requests=0"),
        ("http://h", "--requests=many"),
        ("http://h", "--duration=-1"),
        ("http://h", "--duration=nan"),
        ("http://h", "--concurrency=10001"),
        ("http://h", "--max-failures=-1"),
        ("http://h", "--max-uncounted=-1"),
        ("http://h", "--max-uncounted=101%"),
        ("http://h", "--max-uncounted=few"),
        ("http://h", "--wait=0"),
        ("http://h", "--wait=1", "--replicas=0"),
        ("http://h", "--replicas=3"),
        ("http://h", "--plot=/no/such/folder/x.svg"),
        ("http://h", "--unknown"),
        ("http://h", "another"),
    ],
)
def test_a_bad_argument_is_said_in_one_line(arguments: tuple[str, ...]) -> None:
    assert refused(*arguments)


def test_it_ends_with_the_status_of_a_bad_argument() -> None:
    result = run_check("ftp://h")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "check.py: ftp://h: not a URL such as http://localhost:4000\n"


def test_ctrl_c_ends_early_and_still_reports(valkey: Valkey, counting: Start) -> None:
    server = counting(f"--redis-url={valkey.url}", NO_HURRY)
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), server.url, "--duration=600", "--exclusive"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(lambda: valkey.counter() > 50)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert f"lowest to highest    1 to {valkey.counter():,}" in out


def test_sigterm_ends_soon_although_visits_hang_and_reports_the_others(
    answering: Callable[[Answer], str],
) -> None:
    asked, release = threading.Event(), threading.Event()
    url = answering(lambda n: page(n) if n == 1 else (asked.set(), release.wait(), page(n))[2])
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), url, "--timeout=600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert asked.wait(PATIENCE)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            release.set()
    assert (process.returncode, err) == (0, "")
    assert out.startswith("1 visit in ")


def waits_of(process: subprocess.Popen[str]) -> int:
    """How often a process has gone to sleep, by itself (proc_pid_status(5))."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def test_a_second_ctrl_c_ends_while_a_visit_hangs(answering: Callable[[Answer], str]) -> None:
    asked, release = threading.Event(), threading.Event()
    url = answering(lambda n: (asked.set(), release.wait(), page(n))[2])
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), url, "--timeout=600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert asked.wait(PATIENCE)
            process.send_signal(signal.SIGINT)  # it waits for the visit
            before = waits_of(process)  # and has seen the signal before it next sleeps
            wait_until(lambda: waits_of(process) > before + 1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            release.set()
    assert (process.returncode, out) == (130, "")
    assert err == "check.py: interrupted, no report\n"


def test_a_duration_ends_the_load(answering: Callable[[Answer], str]) -> None:
    report = json.loads(check(answering(page), "--duration=0.5", "--json").stdout)
    assert report["visits"]["made"] >= 1
    assert 0.5 <= report["seconds"] < 10


def test_a_rate_is_not_exceeded(answering: Callable[[Answer], str]) -> None:
    report = json.loads(check(answering(page), "--requests=20", "--rate=50", "--json").stdout)
    assert report["visits"]["made"] == 20
    assert 19 / 50 <= report["seconds"] < 10  # a second for each would be 19


def test_the_progress_is_shown_where_somebody_looks(answering: Callable[[Answer], str]) -> None:
    reading, writing = os.openpty()
    termios.tcsetwinsize(writing, (24, 120))
    seen = b""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), answering(page), "--requests=200", "--json"],
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
    assert report["visits"]["made"] == 200


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


def test_the_plot_has_each_replica_and_marks_failures() -> None:
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
