"""What the audit's own machine lacks is not the server's failure, and is one line."""

import asyncio
import errno
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.client import RanOut
from audit.load import Load
from tests.audit.auditing import Answer, check, page, run_check
from tests.support import ROOT
from tests.support.before import run_before
from tests.support.waiting import PATIENCE

Answering = Callable[[Answer], str]

#: Descriptors of the process, for some thirty connections.
FEW = 40


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_descriptors_that_run_out_are_told_as_such(name: str, answering: Answering) -> None:
    over = threading.Event()
    url = answering(lambda n: (n > 1 and over.wait(PATIENCE), page(n))[1])
    try:
        result = run_check(
            url.replace("127.0.0.1", name),
            "--concurrency=100",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW)),
        )
    finally:
        over.set()
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "check.py: this machine has run out of descriptors (a process may have 40): "
        "a lower --concurrency needs fewer\n"
    )


def test_the_soft_limit_of_descriptors_is_raised(answering: Answering) -> None:
    at_once = threading.Barrier(100)  # so many are open at the same time
    url = answering(lambda n: (n > 1 and at_once.wait(PATIENCE), page(n))[1])
    result = run_check(
        url,
        *("--concurrency=100", "--requests=101", f"--timeout={PATIENCE}"),
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (FEW, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        ),
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


#: Refuses the n-th connection, as connect(2) does when each local port is in use.
NO_PORT = """
import errno, itertools, os, socket
left, Real = itertools.count(1), socket.socket
class Socket(Real):
    def connect(self, address):
        if self.type == socket.SOCK_STREAM and next(left) > 20:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        return super().connect(address)
socket.socket = Socket
"""


def test_local_ports_that_run_out_are_told_as_such(folder: Path, answering: Answering) -> None:
    result = run_check(answering(page), env=os.environ | run_before(folder, NO_PORT))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "check.py: this machine has run out of local ports: "
        "--keep-alive or a lower --rate needs fewer\n"
    )


def test_an_address_that_cannot_be_reached_from_here_is_no_lack_of_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unreachable(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

        def connect_ex(self, address: object) -> int:
            return errno.EADDRNOTAVAIL

    monkeypatch.setattr(socket, "socket", Unreachable)
    load = Load("http://127.0.0.1:9", requests=3, concurrency=1)
    asyncio.run(load.run())
    assert {visit.failure for visit in load.visits} == {"cannot assign requested address"}


def test_the_load_closes_its_connections_when_it_runs_out(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(answering(page), requests=100, concurrency=8, keep_alive=True)
    real, made = load._target.connect, iter(range(1, 100))
    opened = []

    async def connect() -> object:
        if next(made) > 5:
            raise RanOut(errno.ENOBUFS)
        opened.append(await real())
        return opened[-1]

    monkeypatch.setattr(load._target, "connect", connect)
    with pytest.raises(RanOut, match=r"^this machine has run out of buffers: "):
        asyncio.run(load.run())
    assert all(stream.closed() for stream in opened)


def run_shell(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in which ``"$@"`` is the audit with its arguments."""
    script = [sys.executable, str(ROOT / "check.py"), *arguments]
    # Buffered, what was not written is tried again at the exit.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *script],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_reader_that_has_left_is_no_error(answering: Answering) -> None:
    url = answering(page)
    for arguments in ((url, "--requests=5"), (url, "--requests=5", "--json"), ("--help",)):
        result = run_shell('"$@" | true', *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert run_shell('"$@" | head -1', url, "--requests=5").stdout.startswith("5 visits in ")


@pytest.mark.parametrize("arguments", [("--requests=5",), ("--requests=5", "--json"), ("--help",)])
def test_a_full_disk_is_said_in_one_line(arguments: tuple[str, ...], answering: Answering) -> None:
    result = run_shell('"$@" >/dev/full', answering(page), *arguments)
    assert result.returncode == 2
    assert result.stderr == "check.py: standard output: No space left on device\n"


def test_a_plot_that_does_not_fit_costs_no_report(answering: Answering) -> None:
    result = check(answering(page), "--requests=5", "--plot=/dev/full")
    assert result.returncode == 2
    assert "The audit holds." in result.stdout
    assert result.stderr == "check.py: --plot /dev/full: No space left on device\n"


def test_a_terminal_without_bars_gets_the_report(answering: Answering) -> None:
    result = run_check(
        answering(page), "--requests=5", env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "The audit holds." in result.stdout
