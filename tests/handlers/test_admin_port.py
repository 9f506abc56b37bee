"""``--admin-port``: what is for those who run the server has a port of its own. ``--echo``."""

import contextlib
import json
import platform
import socket
import ssl
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import tornado
import trustme

from config import VERSION, commit
from server import StartError
from tests.support.here import Serve, refused, run_here
from tests.support.program import NOWHERE, Connect, Start, read, refuses
from tests.support.waiting import PATIENCE, wait_until


def ask(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    with contextlib.closing(HTTPConnection(host, port, timeout=PATIENCE)) as client:
        client.request("GET", path)
        return read(client)


@pytest.mark.parametrize("processes", [1, 2])
def test_with_it_metrics_faults_and_version_are_there_alone(
    served: Serve, program: Start, processes: int
) -> None:
    start = served if processes == 1 else program
    server = start(NOWHERE, "--faults", "--admin-port=0", f"--processes={processes}")
    admin = int(server.wait_for(rb"admin port at http://127\.0\.0\.1:(\d+)/")[1])
    for path in ("/metrics", "/faults", "/version"):
        assert (server.get(path)[0], ask(admin, path)[0]) == (404, 200), path
    for path in ("/healthz", "/readyz"):
        assert server.get(path) == ask(admin, path)
    for path in ("/", "/live", "/openapi.yaml", "/nothing"):
        assert ask(admin, path)[0] == 404, path
    for _ in range(10):  # each worker has it
        text = ask(admin, "/metrics")[1]
    assert 'route="/metrics"' in text
    known = {"commit": commit()} if commit() else {}
    assert json.loads(ask(admin, "/version")[1]) == known | {
        "version": VERSION,
        "python": platform.python_version(),
        "tornado": tornado.version,
        "compiled": False,
    }


def test_it_is_on_loopback_unless_told_and_lasts_to_the_end(
    served: Serve, connect: Connect
) -> None:
    """And it speaks HTTP where the page speaks HTTPS: see `test_tls`."""
    server = served(NOWHERE, "--admin-port=0", "--path-prefix=/hello", "--grace=60")
    admin = int(server.wait_for(rb"admin port at http://127\.0\.0\.1:(\d+)/hello/\n")[1])
    assert ask(admin, "/hello/version")[0] == 200
    assert ask(admin, "/version")[0] == 404
    with pytest.raises(ConnectionRefusedError):
        ask(admin, "/hello/version", "127.0.0.2")
    client = connect(server)
    client.request("POST", "/hello", b"", {"Content-Length": "5"})  # it goes on for as long
    wait_until(lambda: "friendlyhello_connections 1.0" in ask(admin, "/hello/metrics")[1])
    server.signal()
    wait_until(lambda: refuses(server))  # the page's port
    assert ask(admin, "/hello/readyz")[0] == 503
    assert ask(admin, "/hello/metrics")[0] == 200
    client.send(b"12345")
    assert read(client)[0] == 405
    assert server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(admin, "/hello/metrics")
    everywhere = served(NOWHERE, "--admin-port=0", "--admin-address=0.0.0.0")
    port = int(everywhere.wait_for(rb"admin port at http://0\.0\.0\.0:(\d+)/")[1])
    assert ask(port, "/version", "127.0.0.2")[0] == 200


def test_a_port_that_is_taken_is_one_line_and_so_is_an_address_without_one(served: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        said = f"cannot listen on port {port} of 127.0.0.1: Address already in use"
        with pytest.raises(StartError, match=f"^{said}$"):
            served(NOWHERE, f"--admin-port={port}")
    line = refused(run_here("--admin-address=127.0.0.1"), 2)
    assert line.endswith("allowed only together with --admin-port")


def echoed(client: HTTPConnection, path: str = "/echo", **headers: str) -> tuple[str, Any]:
    client.putrequest("GET", path, skip_accept_encoding=True)
    for name, value in headers.items():
        client.putheader(name.replace("_", "-"), value)
    client.endheaders()
    answer = client.getresponse()
    text = answer.read().decode()
    kind = answer.headers["Content-Type"]
    return kind, json.loads(text) if kind == "application/json" else text


def test_echo_tells_the_request_and_its_headers_in_order(served: Serve, connect: Connect) -> None:
    server = served(NOWHERE, "--echo", "--trusted-proxies=127.0.0.0/8", NAME="<secret>")
    client = connect(server)
    headers = {"X_Zebra": "1", "Accept": "*/*", "X_Forwarded_For": "192.0.2.7"}
    kind, told = echoed(client, "/echo?b=1&a=%20", **headers)
    assert kind == "application/json"
    assert told == {
        "method": "GET",
        "path": "/echo?b=1&a=%20",
        "version": "HTTP/1.1",
        "scheme": "http",
        "client": "192.0.2.7",
        "peer": f"127.0.0.1:{client.sock.getsockname()[1]}",
        "tls": None,
        "client_certificate": None,
        "headers": [
            ["Host", f"127.0.0.1:{server.port}"],
            *([name.replace("_", "-"), value] for name, value in headers.items()),
        ],
    }
    # A browser gets text.
    kind, text = echoed(client, Accept="text/html,*/*;q=0.8", X_Script="<script>")
    assert kind == "text/plain; charset=utf-8"
    assert text.startswith("method: GET\npath: /echo\nversion: HTTP/1.1\nscheme: http\n")
    assert "\n\nHost: " in text
    assert text.endswith("X-Script: <script>\n")
    assert "secret" not in text


def test_echo_tells_of_tls_and_the_clients_certificate(served: Serve, folder: Path) -> None:
    authority = trustme.CA()
    for name in ("server", "client"):
        issued = authority.issue_cert(f"{name}.invalid", "127.0.0.1", common_name=f"{name} one")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    files = [f"--tls-{name}={folder / 'server.pem'}" for name in ("cert", "key")]
    server = served(NOWHERE, "--echo", *files, f"--tls-client-ca={folder / 'ca.pem'}")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(str(folder / "client.pem"))
    with contextlib.closing(HTTPSConnection("127.0.0.1", server.port, context=context)) as client:
        told = echoed(client)[1]
    assert (told["scheme"], told["tls"]) == ("https", "TLSv1.3")
    assert told["client_certificate"].endswith("commonName=client one")
