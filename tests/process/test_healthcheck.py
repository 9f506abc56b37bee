"""``python server.py --healthcheck``: whether the server of the same settings answers."""

import contextlib
import http.client
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from config import Settings
from process import healthcheck
from process.healthcheck import what_is_wrong
from tests.support import Patch
from tests.support.here import Serve, refused, run_here
from tests.support.ports import held_port
from tests.support.program import NOWHERE, Start, run_to_end
from tests.support.waiting import PATIENCE


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """Answer one request; return the port, and what returns the request."""

    def serve() -> bytes:
        client, _ = listening.accept()
        with client:
            request = client.recv(4096)
            client.sendall(answer)
            return request

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        listening.settimeout(PATIENCE)
        yield listening.getsockname()[1], pool.submit(serve).result


def test_it_tells_whether_the_server_answers(program: Start, monkeypatch: Patch) -> None:
    server = program(NOWHERE)
    result = run_to_end("--healthcheck", PORT=str(server.port), PYTHONPROFILEIMPORTTIME="1")
    assert (result.returncode, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert all(line.startswith("import time:") for line in lines)
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert imported & {"config", "redis", "tornado.web", "uvloop"} == {"config"}
    monkeypatch.setattr(healthcheck, "TIMEOUT", 0.1)
    server.signal(signal.SIGSTOP)
    try:
        line = refused(run_here("--healthcheck", "--address=127.0.0.1", PORT=str(server.port)), 1)
    finally:
        server.signal(signal.SIGCONT)
    assert line == f"no answer from 127.0.0.1 port {server.port}: timed out"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", None])
def test_it_asks_where_its_settings_say(address: str | None, served: Serve) -> None:
    flags = [f"--address={address}"] if address else []
    server = served(NOWHERE, *flags, "--log-level=debug")
    assert what_is_wrong(Settings(address=address, port=server.port)) is None
    server.stop()
    assert b" 200 GET /healthz " in server.log


def test_it_sends_no_zone_of_an_address(monkeypatch: Patch) -> None:
    """It is this machine's alone (RFC 6874, 4)."""
    # As in Python 3.11.2; later ones take it out by themselves.
    monkeypatch.setattr(http.client, "_strip_ipv6_iface", lambda name: name, raising=False)
    connect, asked = socket.create_connection, []

    def to_loopback(place: tuple[str, int], *args: object) -> socket.socket:
        asked.append(place)
        return connect(("127.0.0.1", place[1]), PATIENCE)

    monkeypatch.setattr(socket, "create_connection", to_loopback)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, request):
        assert what_is_wrong(Settings(address="fe80::1%eth0", port=port)) is None
        assert f"Host: [fe80::1]:{port}\r\n".encode() in request()
    assert asked == [("fe80::1%eth0", port)]


def test_without_a_server_or_with_something_else_it_is_one_line(served: Serve) -> None:
    def said(port: int) -> str:
        return refused(run_here("--healthcheck", "--address=127.0.0.1", f"--port={port}"), 1)

    with held_port() as deaf:
        port = deaf.getsockname()[1]
        assert f"127.0.0.1 port {port}" in said(port)
    with answering(b"-ERR unknown command\r\n") as (port, _):
        assert "-ERR unknown command" in said(port)
    assert "answered 404" in said(served(NOWHERE, "--path-prefix=/elsewhere").port)
