"""``--admin-port``: what is for those who run the server has a port of its own."""

import json
import platform
import signal
import socket
from collections.abc import Callable
from http.client import HTTPConnection

import pytest
import tornado

from config import VERSION, commit
from tests.support.program import Program, run_to_end
from tests.support.waiting import PATIENCE, wait_until

Start = Callable[..., Program]

AWAY = "--redis-url=unix:/nowhere/redis.sock"


def admin_port(server: Program) -> int:
    return int(server.wait_for(rb"admin port at http://127\.0\.0\.1:(\d+)/")[1])


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    client = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request(method, path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()
    finally:
        client.close()


def test_without_it_all_is_on_the_pages_port(program: Start) -> None:
    server = program(AWAY, "--faults")
    for path in ("/metrics", "/faults", "/version", "/healthz", "/readyz"):
        assert server.get(path)[0] == 200, path
    assert b"admin port" not in server.log


@pytest.mark.parametrize("processes", [1, 2])
def test_with_it_metrics_faults_and_version_are_there_alone(program: Start, processes: int) -> None:
    server = program(AWAY, "--faults", "--admin-port=0", f"--processes={processes}")
    admin = admin_port(server)
    for path in ("/metrics", "/faults", "/version"):
        assert server.get(path)[0] == 404, path
        assert ask(admin, path)[0] == 200, path
    for path in ("/healthz", "/readyz"):
        assert server.get(path) == ask(admin, path)
    for path in ("/", "/live", "/openapi.yaml", "/nothing"):
        assert ask(admin, path)[0] == 404, path
    for _ in range(10):  # each worker has it
        text = ask(admin, "/metrics")[1]
    assert 'route="/metrics"' in text


def test_it_is_below_the_prefix_and_speaks_http_where_the_page_speaks_https(
    program: Start,
) -> None:
    server = program(AWAY, "--admin-port=0", "--path-prefix=/hello")
    admin = int(server.wait_for(rb"admin port at http://127\.0\.0\.1:(\d+)/hello/\n")[1])
    assert ask(admin, "/hello/version")[0] == 200
    assert ask(admin, "/version")[0] == 404


def test_it_answers_until_the_server_ends(program: Start) -> None:
    server = program(AWAY, "--admin-port=0", "--grace=60", "--faults")
    admin = admin_port(server)
    client = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    client.request("GET", "/?wait=3s")
    wait_until(lambda: "friendlyhello_connections 1.0" in ask(admin, "/metrics")[1])
    server.signal(signal.SIGTERM)
    wait_until(lambda: not _listens(server.port))  # the page's port does not any more
    assert ask(admin, "/readyz")[0] == 503
    assert ask(admin, "/metrics")[0] == 200
    assert client.getresponse().status == 200
    client.close()
    assert server.wait() == 0
    assert not _listens(admin)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_it_listens_on_loopback_unless_it_is_told(program: Start) -> None:
    server = program(AWAY, "--admin-port=0")
    admin_port(server)
    everywhere = program(AWAY, "--admin-port=0", "--admin-address=0.0.0.0")
    port = int(everywhere.wait_for(rb"admin port at http://0\.0\.0\.0:(\d+)/")[1])
    assert ask(port, "/version")[0] == 200


def test_a_port_that_is_taken_is_one_line(program: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        ended = run_to_end(AWAY, "--port=0", f"--admin-port={port}")
    assert ended.returncode == 1
    assert f"cannot listen on port {port} of 127.0.0.1: Address already in use" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_an_address_without_a_port_means_nothing() -> None:
    ended = run_to_end("--admin-address=127.0.0.1")
    assert ended.returncode == 2
    assert ended.stderr.endswith("allowed is this only together with --admin-port\n")


def test_version_tells_what_runs(program: Start) -> None:
    told = json.loads(program(AWAY).get("/version")[1])
    known = {"commit": commit()} if commit() else {}
    assert told == known | {
        "version": VERSION,
        "python": platform.python_version(),
        "tornado": tornado.version,
        "compiled": False,
    }
