"""What is refused is said in a line, or as problem+json, whoever refuses it."""

import json
import re
import socket

import pytest

import limits
from tests.support.here import Serve
from tests.support.program import NOWHERE, Site
from tests.support.raw_http import open_to, read_to_end
from tests.support.waiting import wait_until

PREFERS_JSON = b"Accept: application/json, text/plain, */*\r\n"
STREAM = b"GET /live/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def site(served: Serve) -> Site:
    return served(NOWHERE, "--faults", "--version-label=v1", "--log-level=debug")


def talk(site: Site, sent: bytes) -> tuple[int, dict[str, str], str]:
    with open_to(site) as client:
        client.sendall(sent)
        head, _, body = read_to_end(client).decode().partition("\r\n\r\n")
    line, *fields = head.split("\r\n")
    return int(line.split()[1]), dict(field.split(": ", 1) for field in fields), body


COOKIES = b"Cookie: " + b"x" * 17_000


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b" + COOKIES, 431, "a head of more than 16384 bytes"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b" + b"A: b\r\n" * 130, 431, "more than 128 headers"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n%b\r\n", 400, "Host"),
        (b"POST / HTTP/1.1\r\nHost: a\r\n%bContent-Length: 65537\r\n\r\n", 400, "65536 bytes"),
    ],
    ids=["cookies", "headers", "host", "body"],
)
def test_what_the_server_refuses_by_itself_is_said_with_a_date(
    request_: bytes, status: int, said: str, site: Site
) -> None:
    for accept in (b"", PREFERS_JSON):
        found, headers, body = talk(site, request_.replace(b"%b", accept) + b"\r\n")
        assert found == status
        assert {"Date", "X-App-Version", "Content-Security-Policy"} <= headers.keys()
        assert (headers["Connection"], headers["Content-Length"]) == ("close", str(len(body)))
        if accept:
            assert headers["Content-Type"] == "application/problem+json"
            problem = json.loads(body)
            assert problem["status"] == status
            body = f"{status} : {problem['detail']}\n"
        assert body.startswith(f"{status} ")
        assert said in body
        assert body.count("\n") == 1


def test_errors_of_pages_are_in_the_form_that_the_client_prefers_and_so_logged(site: Site) -> None:
    for path, status in (("/nothing", 404), ("/openapiXyaml", 404), ("/live?last=x", 400)):
        sent = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".encode()
        found, headers, body = talk(site, sent + b"\r\n")
        assert (found, headers["Content-Type"]) == (status, "text/plain; charset=utf-8")
        found, headers, body = talk(site, sent + b"Accept: application/json\r\n\r\n")
        assert (found, headers["Content-Type"]) == (status, "application/problem+json")
        assert json.loads(body)["status"] == status
    odd = (
        b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n"
        b"Content-Type: multipart/form-data\r\nContent-Encoding: odd\r\n\r\nx"
    )
    for method in (b"POST", b"BREW"):
        assert talk(site, odd.replace(b"POST", method))[0] == 404
        assert talk(site, odd.replace(b"POST /x", method + b" /"))[0] == 405
    said = [line.partition("] ")[2].partition(" (")[0] for line in site.stop()]
    answered = [one for one in said if re.match(r"\d{3} (POST|BREW) ", one)]
    assert answered == ["404 POST /x", "405 POST /", "404 BREW /x", "405 BREW /"]


def test_streams_have_a_share_and_a_lifetime(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "max_streams", lambda connections: 2)
    monkeypatch.setattr(limits, "STREAM_SECONDS", (1.0, 1.0))
    site = served(NOWHERE)

    def stream() -> socket.socket:
        client = open_to(site)
        client.sendall(STREAM)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        return client

    streams = [stream() for _ in range(2)]
    status, headers, _ = talk(site, STREAM)
    assert (status, headers["Retry-After"]) == (503, "10")
    assert talk(site, STREAM.replace(b"/live/events", b"/healthz"))[0] == 200
    for one in streams:
        read_to_end(one)
        one.close()
    wait_until(lambda: talk(site, STREAM)[0] == 200)
