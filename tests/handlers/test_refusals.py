"""What is refused is said in a line, or as problem+json, whoever refuses it."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator

import pytest
from tornado.testing import bind_unused_port

import limits
import server
from config import Settings
from counter import Visits
from replicas import Reader
from tests.support.waiting import eventually
from watch import Broadcast


@contextlib.asynccontextmanager
async def serving(**options: object) -> AsyncIterator[int]:
    settings = Settings(access_log=True, faults=True, version_label="v1")
    visits = Visits("unix:///nowhere/redis.sock")
    live = Broadcast(Reader(visits.new_connector()))
    running = server.new_server(settings, server.make_app(settings, visits, live))
    listening, port = bind_unused_port()
    running.add_socket(listening)
    try:
        yield port
    finally:
        await live.close()
        running.stop()
        await running.close_all_connections()
        await visits.close()


async def talk(port: int, sent: bytes) -> tuple[int, dict[str, str], str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
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
@pytest.mark.gen_test
async def test_what_the_server_refuses_by_itself_is_said_with_a_date(
    request_: bytes, status: int, said: str
) -> None:
    async with serving() as port:
        for accept in (b"", b"Accept: application/json, text/plain, */*\r\n"):
            found, headers, body = await talk(port, request_.replace(b"%b", accept) + b"\r\n")
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


@pytest.mark.gen_test
async def test_errors_of_pages_are_in_the_form_that_the_client_prefers() -> None:
    async with serving() as port:
        for path, status in (("/nothing", 404), ("/openapiXyaml", 404), ("/live?last=x", 400)):
            sent = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            found, headers, body = await talk(port, f"{sent}\r\n".encode())
            assert (found, headers["Content-Type"]) == (status, "text/plain; charset=utf-8")
            sent += "Accept: application/json\r\n\r\n"
            found, headers, body = await talk(port, sent.encode())
            assert (found, headers["Content-Type"]) == (status, "application/problem+json")
            assert json.loads(body)["status"] == status


@pytest.mark.gen_test
async def test_the_log_says_the_status_that_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sent = (
        b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n"
        b"Content-Type: multipart/form-data\r\nContent-Encoding: odd\r\n\r\nx"
    )
    async with serving() as port:
        for method in (b"POST", b"BREW"):
            assert (await talk(port, sent.replace(b"POST", method)))[0] == 404
            page = sent.replace(b"POST /x", method + b" /")
            assert (await talk(port, page))[0] == 405
    said = [one.getMessage().partition(" (")[0] for one in caplog.records]
    answered = [one for one in said if re.match(r"\d{3} ", one)]
    assert answered == ["404 POST /x", "405 POST /", "404 BREW /x", "405 BREW /"]


@pytest.mark.gen_test
async def test_streams_have_a_share_and_a_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "max_streams", lambda connections: 2)
    monkeypatch.setattr(limits, "STREAM_SECONDS", (0.5, 0.5))
    sent = b"GET /live/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with serving() as port:
        streams = [asyncio.create_task(talk(port, sent)) for _ in range(2)]
        await asyncio.sleep(0.1)
        status, headers, _ = await talk(port, sent)
        assert (status, headers["Retry-After"]) == (503, "10")
        assert (await talk(port, sent.replace(b"/live/events", b"/healthz")))[0] == 200
        await eventually(lambda: all(one.done() for one in streams))
        assert [one.result()[0] for one in streams] == [200, 200]
        assert (await talk(port, sent))[0] == 200
