"""What is refused is said in a line, or as problem+json, whoever refuses it."""

import json
import re
import socket

import pytest

import limits
from tests.support import Patch, raw_http
from tests.support.here import Serve
from tests.support.program import NOWHERE, Site
from tests.support.waiting import PATIENCE, wait_until

PREFERS_JSON = b"Accept: application/json, text/plain, */*\r\n"
PROBLEM = b"application/problem+json"
STREAM = b"GET /live/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def site(served: Serve) -> Site:
    return served(NOWHERE, "--faults", "--version-label=v1", "--log-level=debug")


def talk(site: Site, sent: bytes) -> raw_http.Answer:
    [answer] = raw_http.talk(site, sent)
    return answer


def test_what_is_refused_is_said_with_a_date_in_the_form_the_client_prefers(site: Site) -> None:
    for sent, status, said in (
        (b"GET / HTTP/1.1\r\nCookie: " + b"x" * 17_000, 431, "a head of more than 16384 bytes"),
        (b"GET / HTTP/1.1" + b"\r\nA: b" * 130, 431, "more than 128 headers"),
        (b"GET / HTTP/1.1\r\nHost: b", 400, "host"),
        (b"POST / HTTP/1.1\r\nContent-Length: 65537", 400, "65536 bytes"),
        (b"GET /nothing HTTP/1.1", 404, "404"),
        (b"GET /openapiXyaml HTTP/1.1", 404, "404"),
        (b"GET /live?last=x HTTP/1.1", 400, "last"),
    ):
        for accept, form in (b"", b"text/plain; charset=utf-8"), (PREFERS_JSON, PROBLEM):
            line, _, fields = sent.partition(b"\r\n")
            head = line + b"\r\nHost: a\r\nConnection: close\r\n" + accept + fields
            answer = talk(site, head.rstrip() + b"\r\n\r\n")
            assert answer.status == status
            for name in (b"Date", b"X-App-Version", b"Content-Security-Policy"):
                assert b"\r\n%b: " % name in answer.headers
            for header in b"Connection: close", b"Content-Type: " + form:
                assert b"\r\n%b\r\n" % header in answer.headers + b"\r\n"
            body = answer.body.decode()
            if accept:
                problem = json.loads(body)
                assert problem["status"] == status
                body = f"{status} : {problem.get('detail')}\n"
            told = (body.startswith(f"{status} "), said in body, body.count("\n"))
            assert told == (True, True, 1), body


def test_errors_of_pages_are_logged_once_whatever_the_body(site: Site) -> None:
    odd = (
        b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n"
        b"Content-Type: multipart/form-data\r\nContent-Encoding: odd\r\n\r\nx"
    )
    for method in (b"POST", b"BREW"):
        assert talk(site, odd.replace(b"POST", method)).status == 404
        assert talk(site, odd.replace(b"POST /x", method + b" /")).status == 405
    said = [line.partition("] ")[2].partition(" (")[0] for line in site.stop()]
    answered = [one for one in said if re.match(r"\d{3} (POST|BREW) ", one)]
    assert answered == ["404 POST /x", "405 POST /", "404 BREW /x", "405 BREW /"]


def test_streams_have_a_share_and_a_lifetime(served: Serve, monkeypatch: Patch) -> None:
    monkeypatch.setattr(limits, "max_streams", lambda connections: 2)
    monkeypatch.setattr(limits, "STREAM_SECONDS", (2 * PATIENCE, 2 * PATIENCE))
    site = served(NOWHERE)

    def stream() -> socket.socket:
        client = raw_http.open_to(site)
        client.sendall(STREAM)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        return client

    with raw_http.closing([stream() for _ in range(2)]):
        answer = talk(site, STREAM)
        assert answer.status == 503
        assert b"\r\nRetry-After: 10\r\n" in answer.headers
        assert talk(site, STREAM.replace(b"/live/events", b"/healthz")).status == 200
    monkeypatch.setattr(limits, "STREAM_SECONDS", (0.1, 0.1))
    wait_until(lambda: talk(site, STREAM).status == 200)  # it has read to the end
