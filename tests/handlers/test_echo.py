"""``--echo``: ``GET /echo`` answers the request as it arrived."""

import json
import ssl
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import trustme

from tests.support.here import Serve
from tests.support.program import NOWHERE, Connect
from tests.support.waiting import PATIENCE


def echoed(client: HTTPConnection, path: str = "/echo", **headers: str) -> tuple[str, Any]:
    client.putrequest("GET", path, skip_accept_encoding=True)
    for name, value in headers.items():
        client.putheader(name.replace("_", "-"), value)
    client.endheaders()
    answer = client.getresponse()
    text = answer.read().decode()
    kind = answer.headers["Content-Type"]
    return kind, json.loads(text) if kind == "application/json" else text


def test_it_tells_the_request_with_its_headers_in_their_order(
    served: Serve, connect: Connect
) -> None:
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


def test_it_tells_the_version_of_tls_and_the_subject_of_the_clients_certificate(
    served: Serve, folder: Path
) -> None:
    authority = trustme.CA()
    for name in ("server", "client"):
        issued = authority.issue_cert(f"{name}.invalid", "127.0.0.1", common_name=f"{name} one")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    files = [f"--tls-{name}={folder / 'server.pem'}" for name in ("cert", "key")]
    server = served(NOWHERE, "--echo", *files, f"--tls-client-ca={folder / 'ca.pem'}")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(str(folder / "client.pem"))
    client = HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE, context=context)
    told = echoed(client)[1]
    client.close()
    assert (told["scheme"], told["tls"]) == ("https", "TLSv1.3")
    assert told["client_certificate"].endswith("commonName=client one")
