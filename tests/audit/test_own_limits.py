"""What the audit's own machine lacks is not the server's failure, and is one line."""

import asyncio
import errno
import itertools
import os
import resource
import socket
import subprocess
import threading

import pytest

from audit.client import RanOut
from audit.load import Load
from tests.audit.auditing import CHECK, Speaking, check, page, refused, run_check
from tests.support import Patch
from tests.support.waiting import PATIENCE

#: Descriptors of the process, for some thirty connections.
FEW = 40


@pytest.mark.parametrize("name", ["127.0.0.1", pytest.param("localhost", marks=pytest.mark.slow)])
def test_a_lack_of_descriptors_is_told(
    name: str, speaking: Speaking, free: threading.Event
) -> None:
    url = speaking(lambda n: (n > 1 and free.wait(PATIENCE), page(n))[1]).url
    result = run_check(
        url.replace("127.0.0.1", name),
        "--concurrency=100",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW)),
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "check.py: this machine has run out of descriptors (a process may have 40): "
        "a lower --concurrency needs fewer\n"
    )


def test_the_soft_limit_is_raised_and_ascii_gets_the_report(speaking: Speaking) -> None:
    at_once = threading.Barrier(100)  # so many are open at the same time
    url = speaking(lambda n: (n > 1 and at_once.wait(PATIENCE), page(n))[1]).url
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    result = run_check(
        url,
        *("--concurrency=100", "--requests=101", f"--timeout={PATIENCE}"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard)),
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert "The audit holds." in result.stdout


def refusing(after: int) -> type[socket.socket]:
    """Refuse a connection as connect(2) does when each local port is in use."""
    left = itertools.count(1)

    class Socket(socket.socket):
        def connect(self, address: object) -> None:
            if self.type == socket.SOCK_STREAM and next(left) > after:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            super().connect(address)  # type: ignore[arg-type]

        def connect_ex(self, address: object) -> int:
            return errno.EADDRNOTAVAIL if not after else super().connect_ex(address)  # type: ignore[arg-type]

    return Socket


def test_local_ports_that_run_out_are_told_so(speaking: Speaking, monkeypatch: Patch) -> None:
    url = speaking(page).url
    monkeypatch.setattr(socket, "socket", refusing(after=20))
    said = "this machine has run out of local ports: --keep-alive or a lower --rate needs fewer\n"
    assert refused(url) == said


def test_an_address_out_of_reach_is_no_lack_of_ports(monkeypatch: Patch) -> None:
    monkeypatch.setattr(socket, "socket", refusing(after=0))
    load = Load("http://127.0.0.1:9", requests=3, concurrency=1)
    asyncio.run(load.run())
    assert {visit.failure for visit in load.visits} == {"cannot assign requested address"}


def test_it_closes_connections_when_it_runs_out(speaking: Speaking, monkeypatch: Patch) -> None:
    load = Load(speaking(page).url, requests=100, concurrency=8, keep_alive=True)
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


@pytest.mark.parametrize(
    "arguments",
    [
        "--requests=5",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("--requests=5 --json", "--help")),
    ],
)
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ('"$@" | true', 0, ""),
        ('"$@" >/dev/full', 2, "check.py: standard output: No space left on device\n"),
    ],
)
def test_a_reader_that_has_left_is_no_error_and_a_full_disk_is_one(
    command: str, status: int, said: str, arguments: str, speaking: Speaking
) -> None:
    # Buffered, what was not written is tried again at the exit.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [*CHECK, speaking(page).url, *arguments.split()]
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (result.returncode, result.stdout, result.stderr) == (status, "", said)


def test_a_plot_that_does_not_fit_costs_no_report(speaking: Speaking) -> None:
    result = check(speaking(page).url, "--requests=5", "--plot=/dev/full")
    assert result.returncode == 2
    assert "The audit holds." in result.stdout
    assert result.stderr == "check.py: --plot /dev/full: No space left on device\n"
