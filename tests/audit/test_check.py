"""``check.py``: a deployment passes, a fault in it fails, and its report says where."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from xml.etree import ElementTree

import pytest

from audit.load import Visit
from audit.plot import draw
from audit.report import Judgement, Most, Report
from tests.audit.auditing import (
    CHECK,
    Speaking,
    check,
    failures,
    page,
    started,
)
from tests.support import Patch
from tests.support.here import Serve
from tests.support.names import Names
from tests.support.ports import held_port
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: After a change of what the audit shows, read the new text, and look at the new picture in a
#: browser, before you put it here.
SHOWN = Path(__file__).parent / "shown"


@pytest.mark.parametrize(("flags", "made"), [((), 300), (("--keep-alive",), 9)])
def test_a_sound_server_passes_and_every_number_is_seen(
    flags: tuple[str, ...], made: int, serve: Serve, valkey: Valkey
) -> None:
    server = serve(f"--redis-timeout={PATIENCE}", "--access-log=false")
    with Proxy([server.port]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        result = check(url, "--requests=300", "--concurrency", "8", "--exclusive", *flags)
        assert proxy.accepted == made, "connections are kept when asked"
    assert (result.returncode, result.stderr) == (0, "")
    assert "lowest to highest    1 to 300" in result.stdout
    assert "300 visits in" in result.stdout
    assert "The audit holds." in result.stdout
    assert valkey.counter() == 300


def with_gaps(n: int) -> int:
    return 2 * n if n < 5 else n + 10


@pytest.mark.parametrize(
    ("number", "flags", "said"),
    [
        (lambda n: max(1, n - 1), "", "shown twice          1: 1\n"),
        (lambda n: max(1, n - 1), "", "FAILED: 1 number shown twice."),
        (with_gaps, "", "The audit holds."),  # others may visit
        (with_gaps, "--exclusive", "missing              9: 3, 5, 7, 9–14\n"),
        (lambda n: None, "", "FAILED: no visit got a number, so nothing was checked.\n"),
    ],
)
def test_numbers_that_are_wrong_fail_the_audit(
    number: Callable[[int], int | None], flags: str, said: str, speaking: Speaking
) -> None:
    url = speaking(lambda n: page(number(n))).url
    result = check(url, "--requests=8", *flags.split())
    assert result.returncode == (said != "The audit holds.")
    assert said in result.stdout


def test_the_report_in_json_has_the_same_and_tells_replicas_apart(speaking: Speaking) -> None:
    url = speaking(lambda n: page(None, "abc"[n % 3])).url
    result = check(url, "--requests=9", "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["holds"]) == (1, False)
    assert report["problems"] == ["no visit got a number, so nothing was checked"]
    assert report["visits"] == {"made": 9, "counted": 0, "uncounted": 9, "failed": 0}
    assert report["numbers"]["lowest"] is None
    assert report["replicas"] == {"a": 3, "b": 3, "c": 3}


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
def test_uncounted_visits_fail_where_bounded(allowed: str | None, problem: str | None) -> None:
    visits = [Visit(n, 0.1, "a", None if n in (1, 4, 6) else n) for n in range(8)]
    judgement = Judgement(max_uncounted=Most.of(allowed) if allowed else None)
    assert Report(visits, 8.0, judgement).problems == ([problem] if problem else [])


@pytest.mark.parametrize(("allowed", "status"), [("3", 0), ("2", 1)])
def test_failures_beyond_those_allowed_fail(allowed: str, status: int, speaking: Speaking) -> None:
    url = speaking(lambda n: (503, "") if n in (1, 4, 6) else page(n)).url
    result = check(url, "--requests=8", "--json", f"--max-failures={allowed}")
    assert json.loads(result.stdout)["failures"] == {"status 503": 3}
    assert result.returncode == status


def test_each_kind_of_failure_is_named(
    folder: Path, speaking: Speaking, free: Event, monkeypatch: Patch
) -> None:
    patient = f"--timeout={PATIENCE}"
    with Proxy([folder / "nobody"]) as proxy:
        found = failures(f"http://127.0.0.1:{proxy.port}", patient)
        assert set(found) <= {"closed without an answer", "reset"}
    with held_port() as nobodys:
        assert failures(f"http://127.0.0.1:{nobodys.getsockname()[1]}", patient) == {"refused": 3}
    hangs = speaking(lambda n: (free.wait(), page(n))[1]).url
    assert failures(hangs, "--timeout=0.3") == {"timeout": 3}
    seen = failures(speaking(lambda n: page(n) if n == 1 else (200, "<html>")).url)
    assert seen == {"not friendlyhello's JSON": 2}
    monkeypatch.setattr(socket, "getaddrinfo", Names({"nobody.invalid": []}).getaddrinfo)
    assert failures("http://nobody.invalid", patient) == {"name not resolved": 3}


def waits_of(process: subprocess.Popen[str]) -> int:
    """How often a process has gone to sleep, by itself (proc_pid_status(5))."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


@pytest.mark.parametrize(
    ("signals", "status", "said", "visits"),
    [
        ([signal.SIGINT], 0, "", 10),  # the visit under way is waited for
        ([signal.SIGTERM], 0, "", 9),
        ([signal.SIGINT, signal.SIGINT], 130, "check.py: interrupted, no report\n", 0),
    ],
)
def test_a_signal_ends_an_audit_with_a_report_and_a_second_one_at_once(
    signals: list[int], status: int, said: str, visits: int, speaking: Speaking, free: Event
) -> None:
    asked = Event()
    url = speaking(lambda n: (n > 9 and (asked.set(), free.wait()), page(n))[1]).url
    with started(url, "--timeout=600", "--concurrency=1") as process:
        assert asked.wait(PATIENCE)
        for signum in signals:
            before = waits_of(process)  # it has seen a signal before it next sleeps
            process.send_signal(signum)
            wait_until(
                lambda before=before: process.poll() is not None or waits_of(process) > before + 1
            )
        if visits == 10:
            free.set()
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (status, said)
    assert out.startswith(f"{visits} visits in ") if visits else not out


def test_a_duration_ends_the_load_and_the_plot_is_written(folder: Path, speaking: Speaking) -> None:
    file = folder / "load.svg"
    result = check(speaking(page).url, "--duration=0.3", "--json", f"--plot={file}")
    report = json.loads(result.stdout)
    assert report["visits"]["made"] >= 1
    assert 0.3 <= report["seconds"] < 10
    assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_progress_is_shown_where_somebody_looks(speaking: Speaking) -> None:
    reading, writing = os.openpty()
    termios.tcsetwinsize(writing, (24, 120))
    seen = b""
    with subprocess.Popen(
        [*CHECK, speaking(page).url, "--requests=200", "--json"],
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


def test_an_outage_is_the_longest_stretch_without_a_counted_visit() -> None:
    visits = [Visit(i / 10, 0.01, "a", i + 1) for i in range(10)]
    visits += [Visit(0.95 + i / 10, 0.01, "a") for i in range(20)]
    visits += [Visit(3 + i / 10, 0.01, "a", i + 11) for i in range(10)]
    assert Report(visits, 4.0).stretch == pytest.approx((0.91, 3.01))


def test_latencies_are_those_of_the_answered_visits() -> None:
    visits = [Visit(0, i / 1000, "a", i) for i in range(1, 101)]
    report = Report([*visits, Visit(0, 9.0, failure="timeout")], 9.0)
    assert [report.latency(share) for share in (0.5, 0.9, 0.99, 1)] == [0.05, 0.09, 0.099, 0.1]


def bad_load() -> list[Visit]:
    """More replicas than colours, a long name, each kind of fault, a latency of a second."""
    names = ["<a>", *"bcdefgh", "replica-whose-name-is-too-long"]
    visits = [Visit(i / 100, 0.002 + i % 7 / 1000, names[i % len(names)], i) for i in range(1, 300)]
    del visits[200:203], visits[7]
    visits += [Visit(1.5, 0.1, failure="refused"), Visit(1.6, 0.1, "<a>"), Visit(2, 1.0, "b", 30)]
    return visits


def test_a_load_is_told_and_drawn_as_these_files_show() -> None:
    bad = Report(bad_load(), 3.0, Judgement(exclusive=True), rate=101)
    empty = Report([], 0.0)
    for shown, name in (
        (drawn(bad_load(), 3.0), "bad.svg"),
        (f"{bad.as_text()}\n\n{empty.as_text()}\n", "bad_and_empty.txt"),
        (json.dumps([bad.as_json(), empty.as_json()], indent=2) + "\n", "bad_and_empty.json"),
    ):
        assert shown == (SHOWN / name).read_text(), name


def test_a_load_without_visits_has_a_plot() -> None:
    assert "uncounted" not in drawn([], 0.0)


def drawn(visits: Sequence[Visit], seconds: float) -> str:
    svg = ElementTree.fromstring(draw(visits, seconds))
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"
