"""``check.py`` and its hook: a deployment passes, and a fault in it fails with its name.

What the audit's own machine lacks is not the server's failure, and is one line.
"""

import errno
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from xml.etree import ElementTree

import pytest

from tests.audit.conftest import (
    CHECK,
    Answering,
    Speaking,
    check,
    failures,
    in_bash,
    page,
    refused,
    started,
)
from tests.audit.test_answers import redirect
from tests.support import Patch
from tests.support.here import Serve
from tests.support.names import Names
from tests.support.ports import held_port
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until


@pytest.mark.parametrize(("flags", "made"), [((), 302), (("--keep-alive",), 11)])
def test_a_sound_server_passes_and_every_number_is_seen(
    flags: tuple[str, ...], made: int, serve: Serve, valkey: Valkey
) -> None:
    server = serve(f"--redis-timeout={PATIENCE}", "--access-log=false")
    with Proxy([server.port]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        given = ("--requests=300", "--concurrency=8", "--exclusive", f"--wait={PATIENCE}")
        result = check(url, *given, *flags)
        assert proxy.accepted == made, "connections are kept when asked, but for those of --wait"
    assert (result.returncode, result.stderr) == (0, ""), "it had nothing to wait for"
    assert "300 visits in" in result.stdout
    assert re.search(rf"  {socket.gethostname()} +300  100\.0%", result.stdout)
    assert "lowest to highest    2 to 301" in result.stdout
    assert "The audit holds." in result.stdout
    assert valkey.counter() == 301


def at_times(other: tuple[int, str]) -> Answering:
    return lambda n: other if n in (1, 4, 6) else page(n)


UNCOUNTED, FAILING = at_times(page(None)), at_times((503, ""))


def with_gaps(n: int) -> tuple[int, str]:
    return page(2 * n if n < 5 else n + 10)


@pytest.mark.parametrize(
    ("answering", "flags", "problem"),
    [
        (lambda n: page(max(1, n - 1)), "", "1 number shown twice"),
        (with_gaps, "", None),  # others may visit
        (with_gaps, "--exclusive", "9 numbers missing"),
        (lambda n: page(None), "", "no visit got a number, so nothing was checked"),
        (FAILING, "--max-failures=3", None),
        (FAILING, "--max-failures=2", "3 visits failed, allowed 2"),
        (UNCOUNTED, "", None),
        (UNCOUNTED, "--max-uncounted=3", None),
        (UNCOUNTED, "--max-uncounted=2", "3 visits uncounted, allowed 2"),
        (UNCOUNTED, "--max-uncounted=0", "3 visits uncounted, allowed 0"),
        (UNCOUNTED, "--max-uncounted=37.5%", None),
        (UNCOUNTED, "--max-uncounted=37.4%", "3 visits uncounted, allowed 37.4%"),
    ],
)
def test_an_audit_fails_for_what_is_not_allowed_alone_and_says_why(
    answering: Answering, flags: str, problem: str | None, speaking: Speaking
) -> None:
    result = check(speaking(answering).url, "--requests=8", "--json", *flags.split())
    report = json.loads(result.stdout)
    assert report["problems"] == ([problem] if problem else [])
    assert (result.returncode, report["holds"]) == ((1, False) if problem else (0, True))


def test_each_kind_of_failure_is_named(
    folder: Path, speaking: Speaking, free: Event, monkeypatch: Patch
) -> None:
    patient = f"--timeout={PATIENCE}"
    with Proxy([folder / "nobody"]) as proxy:
        found = failures(f"http://127.0.0.1:{proxy.port}", patient)
        assert set(found) <= {"closed without an answer", "reset"}
    with held_port() as nobodys:
        assert failures(f"http://127.0.0.1:{nobodys.getsockname()[1]}", patient) == {"refused": 3}
    monkeypatch.setattr(socket, "getaddrinfo", Names({"nobody.invalid": []}).getaddrinfo)
    assert failures("http://nobody.invalid", patient) == {"name not resolved": 3}
    for answering, flag, failed in (
        (lambda n: (free.wait(), page(n))[1], "--timeout=0.3", {"timeout": 3}),
        (lambda n: b"220 no HTTP\r\n\r\n", patient, {"closed without an answer": 3}),
        *((lambda n, one=one: (one, ""), patient, {f"status {one}": 3}) for one in (502, 503, 504)),
        (lambda n: page(1) if n == 1 else redirect("http://h", 302), patient, {"redirected": 2}),
        (
            lambda n: page(1) if n == 1 else (200, "<html>"),
            *(patient, {"not friendlyhello's JSON": 2}),
        ),
        (
            lambda n: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000,
            *(patient, {"answer too large": 3}),
        ),
    ):
        assert failures(speaking(answering).url, flag) == failed


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
    with started(*CHECK, url, "--timeout=600", "--concurrency=1") as process:
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
    url = speaking(lambda n: (503, "") if n == 5 else page(n)).url
    with started(*CHECK, url, "--requests=20", "--json", stderr=writing) as process:
        out, _ = process.communicate(timeout=PATIENCE)
    seen = os.read(reading, 65536)
    os.close(reading)
    os.close(writing)
    assert re.search(rb"% \|.*\d visits, .*, 1 failed", seen)
    assert json.loads(out)["visits"]["made"] == 20


def test_the_hook_answers_200_for_an_audit_that_holds_and_500_for_one_that_fails(
    speaking: Speaking,
) -> None:
    # The sixth visit, of the second audit, gets no number.
    audited = speaking(lambda n: page(None if n == 6 else n)).url
    command = (sys.executable, "-m", "audit.hook", audited, "--requests=5", "--max-uncounted=0")
    with started(*command, env=os.environ | {"PORT": "0"}) as hook:
        found = re.search(r"listening on port (\d+)", hook.stderr.readline())
        for status, verdict in (
            (200, "The audit holds."),
            (500, "FAILED: 1 visit uncounted, allowed 0."),
        ):
            client = HTTPConnection("127.0.0.1", int(found[1]), timeout=PATIENCE)
            client.request("POST", "/", b'{"name": "web", "phase": "Progressing"}')
            answer = client.getresponse()
            assert (answer.status, answer.read().decode().splitlines()[-1]) == (status, verdict)
            client.close()
        hook.terminate()
        hook.communicate(timeout=PATIENCE)
        assert hook.returncode == 0


@pytest.mark.parametrize("name", ["127.0.0.1", pytest.param("localhost", marks=pytest.mark.slow)])
def test_a_lack_of_descriptors_is_told(name: str, speaking: Speaking, free: Event) -> None:
    url = speaking(lambda n: (n > 1 and free.wait(PATIENCE), page(n))[1]).url
    # For some thirty connections.
    result = in_bash('ulimit -n 40; "$@"', url.replace("127.0.0.1", name), "--concurrency=100")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "check.py: this machine has run out of descriptors (a process may have 40): "
        "a lower --concurrency needs fewer\n"
    )


def test_the_soft_limit_is_raised_and_ascii_gets_the_report(speaking: Speaking) -> None:
    at_once = threading.Barrier(100)  # so many are open at the same time
    url = speaking(lambda n: (n > 1 and at_once.wait(PATIENCE), page(n))[1]).url
    given = (url, "--concurrency=100", "--requests=101", f"--timeout={PATIENCE}")
    result = in_bash('ulimit -Sn 40; PYTHONIOENCODING=ascii "$@"', *given)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert "The audit holds." in result.stdout


def refusing(number: int, after: int) -> type[socket.socket]:
    """Refuse connections as connect(2) does where something has run out, or is out of reach."""
    left = itertools.count(1)

    class Socket(socket.socket):
        def connect(self, address: object) -> None:
            if self.type == socket.SOCK_STREAM and next(left) > after:
                raise OSError(number, os.strerror(number))
            super().connect(address)  # type: ignore[arg-type]

        def connect_ex(self, address: object) -> int:
            return 0 if after else number

    return Socket


@pytest.mark.parametrize(
    ("number", "lacks"),
    [
        (errno.EADDRNOTAVAIL, "local ports: --keep-alive or a lower --rate needs fewer"),
        (errno.ENOBUFS, "buffers: a lower --concurrency needs fewer"),
    ],
)
def test_what_runs_out_is_told_and_each_connection_closed(
    number: int, lacks: str, speaking: Speaking, monkeypatch: Patch
) -> None:
    server = speaking(page)
    monkeypatch.setattr(socket, "socket", refusing(number, after=5))
    said = f"this machine has run out of {lacks}\n"
    assert refused(server.url, "--concurrency=8", "--keep-alive") == said


def test_an_address_out_of_reach_is_no_lack_of_ports(monkeypatch: Patch) -> None:
    monkeypatch.setattr(socket, "socket", refusing(errno.EADDRNOTAVAIL, after=0))
    assert failures("http://127.0.0.1:9") == {"cannot assign requested address": 3}


@pytest.mark.parametrize(
    "arguments",
    [
        "--requests=5",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("--requests=5 --json", "--help")),
    ],
)
@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        ("| true", 0, ""),
        (">/dev/full", 2, "check.py: standard output: No space left on device\n"),
    ],
)
def test_a_reader_that_has_left_is_no_error_and_a_full_disk_is_one(
    where: str, status: int, said: str, arguments: str, speaking: Speaking
) -> None:
    # Buffered, what was not written is tried again at the exit.
    command = f'env -u PYTHONUNBUFFERED "$@" {where}'
    result = in_bash(command, speaking(page).url, *arguments.split())
    assert (result.returncode, result.stdout, result.stderr) == (status, "", said)


def test_a_plot_that_does_not_fit_costs_no_report(speaking: Speaking) -> None:
    result = check(speaking(page).url, "--requests=5", "--plot=/dev/full")
    assert result.returncode == 2
    assert "The audit holds." in result.stdout
    assert result.stderr == "check.py: --plot /dev/full: No space left on device\n"
