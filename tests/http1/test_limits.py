"""What takes too long or is too much is refused; what is kept for a client is bounded."""

import asyncio
import time

import pytest
from tornado.httputil import HTTPInputError

import http1
from http1.body import ChunkedBody
from http1.head import MAX_FIELDS, MAX_HOST, MAX_METHOD, MAX_NAME, parse_head
from http1.input import Input, TooLarge
from tests.support.served import EXPECT, GET, WAITING, Serve, get, post
from tests.support.site import MUCH
from tests.support.waiting import eventually

MOST = 16 * 1024
HEAD = GET.removesuffix(b"\r\n")


async def test_what_takes_too_long_is_told_and_closed_and_idle_ones_are_closed(
    serve: Serve,
) -> None:
    late = {
        "header_timeout": ([GET[:1], GET + GET[:-1]], b"the head was not whole in 0.1 s"),
        "body_timeout": ([post() + b"hell", post(EXPECT)], b"the body was not whole in 0.1 s"),
        "idle_connection_timeout": ([b"", b"\r\n", GET], b""),
    }
    for limit, (rows, told) in late.items():
        times = dict.fromkeys(late, 60.0) | {limit: 0.1}
        served = serve(**times, refusal=lambda status, why, accept: ({}, why.encode()))
        for sent in rows:
            data = await (await served.connect()).send(sent).rest()
            assert data.count(b"HTTP/1.1 200 OK") == sent.count(GET), sent
            assert data.count(b"HTTP/1.1 408 Request Timeout\r\n") == bool(told), sent
            assert data.endswith(told)
            assert b"400" not in data


async def test_each_has_its_own_time_and_one_that_ends_takes_no_others(serve: Serve) -> None:
    served = serve(idle_connection_timeout=0.15, header_timeout=0.15)
    clock = asyncio.get_running_loop().time
    for _ in range(2):  # the second time, all were looked at that had come
        clients, last = [], []
        for _ in range(3):
            begun = clock()
            clients += [(await served.connect(), begun), (await served.connect(), begun)]
            last.append((await served.connect()).send(GET[:9]))
            (await served.connect()).close()
            await asyncio.sleep(0.04)
        for client, begun in clients:
            assert await client.rest() == b""
            assert clock() - begun > 0.14
        for client in last:
            assert b" 408 " in await client.rest()


async def test_time_of_a_header_begins_with_its_first_byte_and_ends_no_answer(serve: Serve) -> None:
    served = serve(idle_connection_timeout=0.1, header_timeout=0.1, body_timeout=0.1)
    client, slow = await served.connect(), await served.connect()
    refused = asyncio.ensure_future(slow.send(GET[:1]).rest())
    for at in range(1, 4):
        await asyncio.sleep(0.075)  # it is time that is measured
        assert (await client.ask(GET)).status == 200
        slow.send(GET[at : at + 1])
    assert b" 408 " in refused.result()
    client.send(WAITING)
    await asyncio.sleep(0.2)
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"


@pytest.mark.parametrize("path", ["/pieces", "/whole"])
async def test_client_that_reads_nothing_goes_before_an_idle_one(path: str, serve: Serve) -> None:
    served = serve(idle_connection_timeout=600.0, write_timeout=0.1)
    (await served.connect(limit=1024)).send(get(path))
    await eventually(lambda: served.state.begun)
    await eventually(lambda: not served.server.connections)
    await eventually(lambda: served.state.is_over or path == "/whole")
    assert served.state.written < MUCH  # flush waited for it
    assert served.state.left == (path == "/pieces")


async def test_client_that_reads_some_of_a_long_answer_gets_the_same_time_again(
    serve: Serve,
) -> None:
    served = serve(idle_connection_timeout=600.0, write_timeout=600.0)
    client = (await served.connect(limit=1024)).send(get("/whole"))
    await eventually(lambda: served.state.begun)
    [connection] = served.server._open
    unsent = connection.open_transport.get_write_buffer_size
    await eventually(unsent)
    before = unsent()
    while unsent() >= before:
        await client.reader.read(65536)
    connection.on_deadline()
    await served.seen()
    assert connection.transport
    # It reads no more: once the system has taken what it can, the time is over.
    await eventually(lambda: not connection.transport or connection.on_deadline())


async def test_what_follows_a_request_is_not_read_before_its_answer(serve_either: Serve) -> None:
    served = serve_either(max_header_size=MOST)
    client = (await served.connect()).send(WAITING + b"x" * (256 * 1024))
    await eventually(lambda: served.state.begun)
    [connection] = served.server._open
    await eventually(lambda: connection.reading_paused)
    for _ in range(20):
        assert len(connection.input.data) <= MOST
        await asyncio.sleep(0.001)
    served.state.go_on.set()
    assert (await client.answer()).status == 200
    assert b" 431 " in await client.rest() or not served.tls


class Page(http1.RequestHandler):
    """Has no use for a body."""

    MAX_BODY_SIZE = 0

    async def post(self) -> None:
        self.finish({"kept": len(self.request.body), "arguments": len(self.request.arguments)})


class Little(Page):
    MAX_BODY_SIZE = 100


async def test_a_body_is_kept_for_who_wants_it_within_limits_or_passed_over(serve: Serve) -> None:
    app = http1.Application([("/", Page), ("/little", Little)])
    client = await serve(app=app, max_header_size=MOST, max_body_size=1 << 20).connect()

    def posted(path: str, body: bytes, *lines: str) -> bytes:
        return get(path, f"Content-Length: {len(body)}", *lines, method="POST") + body

    for lines in (
        ["Content-Type: application/x-www-form-urlencoded"],
        ["Content-Type: multipart/form-data", "Content-Encoding: odd"],
    ):
        sent = posted("/", b"a=b&" * 20_000, *lines)
        client.send(sent[:-1])
        await client.writer.drain()
        assert (await client.ask(sent[-1:])).json == {"kept": 0, "arguments": 0}
    answer = await client.ask(posted("/little", b"x" * 100))
    assert answer.json == {"kept": 100, "arguments": 0}
    assert (await client.ask(posted("/little", b"x" * 101))).status == 400


def test_what_caches_keep_of_heads_is_bounded_in_bytes() -> None:
    fields = [f"X{i}: y" for i in range(MAX_FIELDS - 1)]  # and the host
    assert parse_head(get("/", *fields))
    for lines in [*fields, "X: y"], ["X" * (MAX_NAME + 1) + ": y"]:
        with pytest.raises(TooLarge):
            parse_head(get("/", *lines))
    host = b"a" * (MAX_HOST + 1)
    for head in get(method="G" * (MAX_METHOD + 1)), GET.replace(b": a", b": " + host):
        with pytest.raises(HTTPInputError):
            parse_head(head)


def test_a_byte_at_the_end_of_a_long_head_costs_as_much_as_at_its_beginning() -> None:
    def seconds(head: bytes, begin: int) -> float:
        some = Input(MOST)
        some.add(head[:begin])
        assert some.read_head() is None
        begun = time.process_time()
        for at in range(begin, begin + 2000):
            some.add(head[at : at + 1])
            assert some.read_head() is None
        return time.process_time() - begun

    long_line = (b"GET /" + b"x" * 12_000, b"G" * 12_000, HEAD + b"X: " + b"y" * 12_000)
    for head in (*long_line, HEAD + b"X: y\r\n" * 2000):
        late, early = (min(seconds(head, at) for _ in range(3)) for at in (9_900, 100))
        assert late < 5 * early, head[:50]


def test_lines_of_chunks_are_bounded_as_each_is_looked_at_again() -> None:
    body = ChunkedBody(1 << 16, MOST)
    body.read(b"5;" + b"x" * 1000, 0, 65536)
    with pytest.raises(HTTPInputError, match="too large"):
        body.read(b"5;" + b"x" * 1100, 0, 65536)
