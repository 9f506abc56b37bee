"""Connections that are kept, pipelines, and the bodies of requests and answers.

``fuzz/`` has chunks, upgrades, and answers without a body, in any order.
"""

import pytest

from tests.support import Caplog
from tests.support.served import CLOSE, EXPECT, GET, Serve, get, post
from tests.support.site import MUCH


async def test_answer_of_unknown_length_is_chunked_or_the_last_in_http_1_0(serve: Serve) -> None:
    client = await serve().connect()
    answer = await client.ask(get("/pieces"))
    assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"x" * MUCH)
    client.send(get("/pieces", "Connection: keep-alive", version="HTTP/1.0") + GET)
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"Connection" not in head
    assert body == b"x" * MUCH


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "200/2"), ("GET", "304/3"), ("HEAD", "200/3")]
)
async def test_more_of_a_body_than_the_answer_may_have_is_not_sent(
    method: str, path: str, serve: Serve, caplog: Caplog
) -> None:
    client = await serve().connect()
    client.send(get(f"/overlong/{path}", method=method) + GET)
    assert b"two" not in await client.rest()
    assert "more data than Content-Length" in caplog.text


async def test_connection_is_not_kept_without_keep_alive(serve: Serve) -> None:
    client = await serve(no_keep_alive=True).connect()
    assert (await client.ask(GET)).headers["connection"] == "close"
    assert await client.rest() == b""


async def test_pipeline_whose_answers_are_not_read_is_not_read_either(serve: Serve) -> None:
    served = serve()
    client = await served.connect(limit=1024)
    number = MUCH // 40_000
    client.send(get("/echo?" + "x" * 40_000) * number + CLOSE)
    before, begun = -1, 0
    while before != begun:
        await served.seen()
        before, begun = begun, sum(uri != "/" for uri in served.state.begun)
    assert 0 < begun < number
    assert client.writer.transport.get_write_buffer_size() > 0  # nor is it kept
    assert (await client.rest()).count(b"HTTP/1.1 200 OK\r\n") == number + 1


@pytest.mark.parametrize(
    ("sent", "later", "status"),
    [
        (post("Expect: 100-Continue"), b"hello", 100),
        (post(EXPECT) + b"hello", b"", 200),
        (post(EXPECT, version="HTTP/1.0"), b"hello", 200),
        (post("Expect: another"), b"hello", 200),
        (post(EXPECT, path="/refusing"), b"", 413),
        (get("/", EXPECT, "Content-Length: 0", method="POST"), b"", 200),
        (get("/", EXPECT, "Content-Length: 999999", method="POST"), b"", 400),
    ],
    ids=["asked for", "with it", "1.0", "another", "refused", "no body", "too long"],
)
async def test_only_a_body_that_is_waited_for_is_asked_for(
    sent: bytes, later: bytes, status: int, serve: Serve
) -> None:
    served = serve(max_body_size=10)
    client = (await served.connect()).send(sent)
    await served.seen()
    if status == 100:
        asked = await client.reader.readuntil(b"\r\n\r\n")
        assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
        status = 200
    answer = await client.ask(later)
    assert (answer.status, answer.informational) == (status, [])
    assert status == 200 or b" 100 " not in await client.rest()


async def test_informational_answer_comes_before_the_other(serve: Serve) -> None:
    answer = await serve().ask(get("/hinting"))
    assert (answer.status, answer.informational, answer.body) == (200, [103], b"hinted")
    assert "link" not in answer.headers
