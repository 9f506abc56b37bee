"""What the audit's own machine lacks is not the server's failure, and is one line."""

import errno
import itertools
import os
import socket
import threading

import pytest

from tests.audit.conftest import Speaking, check, failures, in_bash, page, refused
from tests.support import Patch
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize("name", ["127.0.0.1", pytest.param("localhost", marks=pytest.mark.slow)])
def test_a_lack_of_descriptors_is_told(
    name: str, speaking: Speaking, free: threading.Event
) -> None:
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
