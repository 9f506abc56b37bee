"""The server behind a proxy: whose address it logs, and the path that stands before every path."""

import json
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urljoin

import pytest
import yaml

from config import Settings
from handlers.static import StaticHandler
from server import make_app
from tests.support.here import Serve, refused, run_here
from tests.support.program import NOWHERE
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until


@pytest.mark.parametrize(
    ("flags", "logged"),
    [
        (["--trusted-proxies=127.0.0.2,127.0.0.8/31"], ["203.0.113.9", "127.0.0.1"]),
        ([], ["127.0.0.2", "127.0.0.1"]),
    ],
)
def test_the_log_names_whom_a_trusted_proxy_names_and_no_one_elses_word_counts(
    flags: list[str], logged: list[str], served: Serve
) -> None:
    said = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 127.0.0.9", "X-Real-Ip": "7.7.7.7"}
    server = served(NOWHERE, "--log-format=json", *flags)
    for host in ("127.0.0.2", "127.0.0.1"):
        with closing(HTTPConnection("127.0.0.1", server.port, PATIENCE, (host, 0))) as client:
            client.request("GET", "/nothing", headers=said)
            assert client.getresponse().status == 404
    requests = [line for line in map(json.loads, server.stop()) if "status" in line]
    assert [line["remote"] for line in requests] == logged
    assert all(f"({line['remote']})" in line["message"] for line in requests)


def test_every_path_is_below_the_prefix_and_nothing_is_outside_of_it(
    serve: Serve, valkey: Valkey
) -> None:
    prefix = "/a.b/~c-1_"
    server = serve(f"--path-prefix={prefix}/", "--log-format=json", "--faults")
    assert f"listening on http://localhost:{server.port}{prefix}/" in server.log.decode()
    paths = [
        *("", "/", "/?x=y", "?x=y", "/healthz", "/readyz", "/live", "/metrics", "/openapi.yaml"),
        *("/static/live.js", f"/{StaticHandler.url('live.css')}"),
    ]
    for path in paths:
        assert server.get(prefix + path)[0] == server.get(prefix + path, "HEAD")[0] == 200, path
    stream = "/live/events"
    assert server.get(prefix + stream, "HEAD")[0] == 200
    assert valkey.counter() == 4, "a GET of the page, and nothing else, counts"
    outside = [
        *(path for path in (*paths, stream) if path.startswith("/")),
        *(
            f"{prefix}foo",
            f"{prefix}//",
            prefix.replace(".", "x"),
            prefix[:-1],
            f"{prefix}/nothing",
        ),
        *(f"{prefix}{prefix}", f"{prefix}/live/", f"/x{prefix}/", f"{prefix.upper()}/"),
    ]
    for path in outside:
        assert server.get(path)[0] == 404, path
    assert server.get(prefix, "POST")[0] == 405
    assert valkey.counter() == 4

    counted = 'friendlyhello_requests_total{code="200",method="GET",route="%s"} %d.0\n'
    expected = [("/", 4), ("/healthz", 1), ("/live", 1), ("/static/{file}", 2)]
    for row in expected:  # once the metrics are written anew
        wait_until(lambda row=row: counted % row in server.get(f"{prefix}/metrics")[1], pause=0.1)
    for path in ("", "/"):
        assert server.get(f"{prefix}{path}?status=503")[0] == 503, "faults are asked for there too"
    health = run_here("--healthcheck", PORT=str(server.port), PATH_PREFIX=prefix)
    assert health.returncode == 0
    assert "answered 404" in refused(run_here("--healthcheck", PORT=str(server.port)), 1)
    logged = [json.loads(line).get("path") for line in server.stop()]
    assert prefix in logged, "the log has the whole path"
    assert f"{prefix}/static/live.js" in logged
    # The same pages take the short way.
    short, below = make_app().eager.keys(), make_app(Settings(path_prefix=prefix)).eager.keys()
    assert "/" in short
    assert below == {prefix + one for one in ["", *short]}


@pytest.mark.parametrize("prefix", ["", "/hello"])
def test_the_description_names_the_paths_beside_it(prefix: str, served: Serve) -> None:
    """A server's URL is relative to the description's own (OpenAPI 3.1.0, 4.8.5)."""
    server = served(NOWHERE, f"--path-prefix={prefix}")
    description = yaml.safe_load(server.get(f"{prefix}/openapi.yaml")[1])
    (place,) = description["servers"]
    begin = urljoin(f"{prefix}/openapi.yaml", place["url"]).removesuffix("/")
    for path in ("/", "/healthz", "/openapi.yaml"):
        assert path in description["paths"]
        assert server.get(f"{begin}{path}")[0] == 200
