"""What a connection keeps of what its client sends, and the work for it, are bounded."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tornado.httputil import HTTPInputError

import http1
from http1 import head
from http1.beginning import Beginning
from http1.body import ChunkedBody
from http1.input import Input, TooLarge
from tests.support.served import GET, WAITING, Serve, get
from tests.support.waiting import eventually

MOST = 16 * 1024
JUNK = b"x" * (256 * 1024)
LONG_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"A%d: b\r\n" % (i % 9) for i in range(120))


class Page(http1.RequestHandler):
    """Has no use for a body."""

    MAX_BODY_SIZE = 0

    async def post(self) -> None:
        self.finish({"kept": len(self.request.body), "arguments": len(self.request.arguments)})


class Little(Page):
    MAX_BODY_SIZE = 100


async def test_what_follows_a_request_is_not_read_while_it_waits_for_its_answer(
    serve_either: Serve,
) -> None:
    served = serve_either(max_header_size=MOST)
    client = (await served.connect()).send(WAITING + JUNK)
    await eventually(lambda: served.state.begun)
    [connection] = served.server._open
    await eventually(lambda: connection.reading_paused)
    for _ in range(20):
        assert len(connection.input.data) <= MOST
        await asyncio.sleep(0.001)
    served.state.go_on.set()
    assert (await client.answer()).status == 200
    assert b" 431 " in await client.rest() or not served.tls


def posted(path: str, body: bytes, *lines: str) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *lines, method="POST") + body


@pytest.mark.parametrize(
    "lines",
    [
        ("X: y",),
        ("Content-Type: application/x-www-form-urlencoded",),
        ("Content-Type: multipart/form-data; boundary=a",),
        ("Content-Type: multipart/form-data", "Content-Encoding: odd"),
    ],
)
async def test_a_body_is_kept_for_who_wants_it_as_far_as_it_may_be_and_else_passed_over(
    lines: tuple[str, ...], serve: Serve
) -> None:
    app = http1.Application([("/", Page), ("/little", Little)])
    client = await serve(app=app, max_header_size=MOST, max_body_size=1 << 20).connect()
    sent = posted("/", b"a=b&" * 20_000, *lines)
    client.send(sent[:-1])
    await client.writer.drain()
    assert (await client.ask(sent[-1:])).json == {"kept": 0, "arguments": 0}
    answer = await client.ask(posted("/little", b"x" * 100, "X: y"))
    assert answer.json == {"kept": 100, "arguments": 0}
    assert (await client.ask(posted("/little", b"x" * 101))).status == 400


def test_what_caches_keep_of_heads_is_bounded_in_bytes() -> None:
    fields = b"".join(b"X%d: y\r\n" % i for i in range(head.MAX_FIELDS - 1))
    assert head.parse_head(GET[:-2] + fields + b"\r\n")
    for too_large in (
        GET[:-2] + b"X: y\r\n" + fields,
        GET[:-2] + b"X" * (head.MAX_NAME + 1) + b": y\r\n",
    ):
        with pytest.raises(TooLarge):
            head.parse_head(too_large + b"\r\n")
    for line, host in ((b"GET /", b"a" * (head.MAX_HOST + 1)), (b"G" * 65 + b" /", b"a")):
        with pytest.raises(HTTPInputError):
            head.parse_head(line + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")


@pytest.mark.parametrize("size", [1, 7])
def test_each_byte_of_a_head_is_parsed_once_however_it_is_cut(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    feed = head.feed  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "http1.beginning.feed", lambda parser, lines: fed.append(len(lines)) or feed(parser, lines)
    )
    some = Input(MOST)
    for at in range(0, len(LONG_HEAD), size):
        some.add(LONG_HEAD[at : at + size])
        assert some.read_head() is None
    assert len(LONG_HEAD) - 50 < sum(fed) <= len(LONG_HEAD)
    some.add(b"\r\n")
    assert some.read_head() == LONG_HEAD + b"\r\n"


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


@pytest.mark.parametrize(
    "line",
    [b"GET /" + b"x" * 12_000, b"G" * 12_000, GET[:-2] + b"X: " + b"y" * 12_000],
    ids=["target", "method", "value"],
)
def test_a_byte_near_the_end_of_a_long_line_costs_as_much_as_one_at_its_beginning(
    line: bytes,
) -> None:
    def check(begin: int) -> float:
        def run() -> None:
            beginning: Any = Beginning()
            beginning.check(line[:begin])
            for end in range(begin + 1, begin + 2000):
                beginning.check(line[:end])

        return min(seconds(run) for _ in range(3))

    assert check(9_900) < 5 * check(100)


def test_lines_of_chunks_are_bounded_as_each_is_looked_at_again() -> None:
    body = ChunkedBody(1 << 16, MOST)
    body.read(b"5;" + b"x" * 1000, 0, 65536)
    with pytest.raises(HTTPInputError, match="too large"):
        body.read(b"5;" + b"x" * 1100, 0, 65536)
