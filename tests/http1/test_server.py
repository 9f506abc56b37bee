"""The HTTP server's promises, on both event loops; Tornado's own tests and `faults` have others."""

import asyncio
import contextlib
import gc
import ipaddress
import json
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable
from http.client import responses
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import h11
import pytest
import tornado.httpserver
import trustme
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets, bind_unix_socket
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler, stream_request_body

from http1 import HTTPServer
from http1.server import TLS_WARNINGS_EVERY
from tests.faults.test_clients import TLS_HELLO
from tests.support.patient_loops import LOOPS, time_of
from tests.support.raw_http import reset
from tests.support.waiting import PATIENCE, eventually

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

gen_test = pytest.mark.gen_test

#: What a request with a body begins with, and what goes on with chunks.
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

EVERYBODY = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]

#: More than the systems on both sides keep for a client that does not read.
MUCH = 16 << 20


@pytest.fixture(
    params=[
        pytest.param("asyncio", marks=pytest.mark.slow),
        "uvloop",  # as the program has it where it is installed
        pytest.param("uvloop, answers together", marks=pytest.mark.slow),  # test_outbox.py has more
    ]
)
def new_loop(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], asyncio.AbstractEventLoop]:
    loop, _, are_together = request.param.partition(", ")
    if are_together:
        monkeypatch.setattr("http1.outbox.MANY", 0)
    monkeypatch.setattr(IOLoop, "time", time_of)
    return LOOPS[loop]


class State:
    """What the handlers do and see."""

    def __init__(self) -> None:
        self.begun: list[str] = []  # the URIs of the requests
        self.left = 0  # clients that were gone before they had their answer
        self.go_on = asyncio.Event()
        self.is_over = False  # `Pieces` is
        self.written = 0  # bytes that `Pieces` did not have to wait for any more


class Handler(RequestHandler):
    """Notes each request."""

    def prepare(self) -> None:
        self.state.begun.append(self.request.uri or "")

    @property
    def state(self) -> State:
        state = self.settings["state"]
        assert isinstance(state, State)
        return state

    def on_connection_close(self) -> None:
        self.state.left += 1


class Echo(Handler):
    """Says what was asked."""

    def get(self) -> None:
        request = self.request
        fields = sorted(name.lower() for name in request.headers)
        body = request.body.decode("latin1")
        self.write({"uri": request.uri, "host": request.host, "body": body, "fields": fields,
                    "ip": request.remote_ip, "protocol": request.protocol})  # fmt: skip

    head = post = put = options = get


class Waiting(Handler):
    """Answers when the test says so."""

    async def get(self) -> None:
        await self.state.go_on.wait()
        self.write("at last")


class Pieces(Handler):
    """Writes much, piece by piece, without saying how much it will be."""

    async def get(self) -> None:
        with contextlib.suppress(StreamClosedError):
            for _ in range(MUCH // 65536):
                self.write(b"x" * 65536)
                await self.flush()
                self.state.written += 65536
        self.state.is_over = True


class Whole(Handler):
    """Writes much at once, and closes."""

    def get(self) -> None:
        self.set_header("Connection", "close")
        self.write(b"x" * MUCH)


class Bare(Handler):
    """Answers with a status that has no body."""

    def get(self, status: str) -> None:
        self.set_status(int(status))


class Hinting(Handler):
    """Sends an informational answer first."""

    async def get(self) -> None:
        start_line = ResponseStartLine("HTTP/1.1", 103, "Early Hints")
        connection = self.request.connection
        assert connection is not None
        await connection.write_headers(start_line, HTTPHeaders({"Link": "</x>"}))
        self.write("hinted")


class Overlong(Handler):
    """Writes more of a body than the answer may have."""

    def get(self, status: str, length: str) -> None:
        connection = self.request.connection
        assert connection is not None
        start_line = ResponseStartLine("HTTP/1.1", int(status), "Reason")
        connection.write_headers(start_line, HTTPHeaders({"Content-Length": length}))
        connection.write(b"two")

    head = get


@stream_request_body
class Refusing(Handler):
    """Refuses a body before it is sent."""

    def prepare(self) -> None:
        super().prepare()
        self.send_error(413)


class Certificate(Handler):
    """Names who has shown a certificate."""

    def get(self) -> None:
        certificate: Any = self.request.get_ssl_certificate()
        self.write({"names": certificate and certificate["subjectAltName"]})


def application(state: State) -> Application:
    routes = [
        (r"/(?:echo.*)?", Echo),
        (r"/waiting", Waiting),
        (r"/pieces", Pieces),
        (r"/whole", Whole),
        (r"/bare/(\d+)", Bare),
        (r"/hinting", Hinting),
        (r"/overlong/(\d+)/(\d+)", Overlong),
        (r"/refusing", Refusing),
        (r"/certificate", Certificate),
    ]
    return Application(routes, state=state, log_function=lambda _: None)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    informational: list[int]

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


class Client:
    """Sends bytes, and reads answers as h11 does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._unread = b""

    def send(self, data: bytes) -> "Client":
        self.writer.write(data)
        return self

    async def answer(self, method: str = "GET") -> Answer:
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(self._unread or await self.reader.read(65536))
        informational, head, body = [], None, bytearray()
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.InformationalResponse):
                informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                head = event
            else:
                assert isinstance(event, h11.Data), event
                body += event.data
        assert head is not None
        self._unread = parser.trailing_data[0]
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Answer(head.status_code, headers, bytes(body), informational)

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        return await self.send(data).answer(method)

    async def rest(self) -> bytes:
        """What is sent until the connection is closed."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                return self._unread + await self.reader.read()
        return self._unread

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close without a farewell."""
        sock = self.writer.get_extra_info("socket")
        sock = socket.socket(fileno=socket.dup(sock.fileno()))
        self.writer.transport.abort()
        reset(sock)


class Served:
    """A server on a port of its own, with its clients."""

    started: ClassVar[list["Served"]] = []
    """Those that are not closed yet; `conftest.py` closes them."""

    def __init__(self, server: HTTPServer, state: State) -> None:
        self.started.append(self)
        self.server = server
        self.state = state
        self._clients: list[Client] = []
        sock, self.port = bind_unused_port()
        server.add_socket(sock)

    async def connect(self, **options: Any) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self._clients.append(Client(reader, writer))
        return self._clients[-1]

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Ask on a connection of its own."""
        return await (await self.connect()).ask(data, method)

    async def seen(self) -> None:
        """Wait until the server has read what was sent before."""
        for _ in range(2):
            assert (await self.ask(CLOSE)).status == 200

    async def close(self) -> None:
        self.started.remove(self)
        for client in self._clients:
            client.writer.close()
        self.server.stop()
        await self.server.close_all_connections()
        await asyncio.sleep(0)


Serve = Callable[..., Served]


@pytest.fixture
def serve(io_loop: IOLoop) -> Serve:
    """Start a server, with options of `HTTPServer`."""

    def start(kind: type[HTTPServer] = HTTPServer, **options: Any) -> Served:
        state = State()
        return Served(kind(application(state), **options), state)

    return start


class Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls() -> Contexts:
    """Both sides of TLS, each with a certificate."""
    authority = trustme.CA()
    contexts = Contexts(
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    )
    contexts.server.verify_mode = ssl.CERT_OPTIONAL
    for context, name in zip(contexts, ("localhost", "client.example"), strict=True):
        authority.issue_cert(name).configure_cert(context)
        authority.configure_trust(context)
    return contexts


# Connections that are kept, and pipelines.


@gen_test
async def test_answer_of_unknown_length_ends_with_the_connection_in_http_1_0(serve: Serve) -> None:
    client = await serve().connect()
    client.send(b"GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET)
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"Connection" not in head
    assert body == b"x" * MUCH


@gen_test
@pytest.mark.parametrize(
    "asked", ["GET /overlong/200/2", "GET /overlong/304/3", "HEAD /overlong/200/3"]
)
async def test_more_of_a_body_than_the_answer_may_have_is_not_sent(
    asked: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve().connect()
    client.send(f"{asked} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + GET)
    assert b"two" not in await client.rest()
    assert "more data than Content-Length" in caplog.text


@gen_test
async def test_connection_is_not_kept_without_keep_alive(serve: Serve) -> None:
    client = await serve(no_keep_alive=True).connect()
    assert (await client.ask(GET)).headers["connection"] == "close"
    assert await client.rest() == b""


@gen_test
async def test_request_waits_until_the_one_before_is_answered(serve: Serve) -> None:
    served = serve()
    client = await served.connect()
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    await served.seen()
    assert [uri for uri in served.state.begun if uri != "/"] == ["/waiting"]
    assert served.state.begun.count("/") == 2  # those of `seen`
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"
    assert (await client.answer()).json["uri"] == "/"


@gen_test
async def test_request_that_begins_while_another_is_answered_is_read_on(serve: Serve) -> None:
    served = serve()
    clients = [await served.connect() for _ in range(len(GET))]
    for client in clients:
        client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await served.seen()
    for cut, client in enumerate(clients):
        client.send(GET[:cut])
    await served.seen()
    served.state.go_on.set()
    for cut, client in enumerate(clients):
        assert (await client.answer()).body == b"at last"
        assert (await client.ask(GET[cut:])).json["uri"] == "/"


@gen_test
async def test_pipeline_whose_answers_are_not_read_is_not_read_either(serve: Serve) -> None:
    served = serve()
    client = await served.connect(limit=1024)
    request = b"GET /echo?" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    number = MUCH // 40_000
    client.send(request * number)
    before = -1
    while before != (before := len(served.state.begun)):
        await served.seen()
        served.state.begun = [uri for uri in served.state.begun if uri != "/"]
    assert 0 < len(served.state.begun) < number
    assert client.writer.transport.get_write_buffer_size() > 0  # nor is it kept
    for _ in range(number):
        assert (await client.answer()).status == 200
    assert len([uri for uri in served.state.begun if uri != "/"]) == number


# Bodies.


def with_body(path: bytes = b"/", *fields: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    lines = [b"POST " + path + b" " + version, b"Host: a", b"Content-Length: 5", *fields]
    return b"\r\n".join([*lines, b"", b""])


EXPECT = b"Expect: 100-continue"


@gen_test
async def test_body_that_waits_to_be_asked_for_is_asked_for(serve: Serve) -> None:
    client = await serve().connect()
    client.send(with_body(b"/", b"Expect: 100-Continue"))
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    answer = await client.ask(b"hello" + GET)
    assert (answer.json["body"], answer.informational) == ("hello", [])
    assert (await client.answer()).json["body"] == ""


@gen_test
@pytest.mark.parametrize(
    "sent",
    [
        with_body(b"/", EXPECT) + b"hello",
        with_body(b"/", EXPECT, version=b"HTTP/1.0") + b"hello",
        with_body(b"/", b"Expect: another") + b"hello",
        with_body(b"/refusing", EXPECT),
        POST + b"Expect: 100-continue\r\n\r\n",
        POST + b"Expect: 100-continue\r\nContent-Length: 999999\r\n\r\n",
    ],
    ids=["came with it", "HTTP 1.0", "another expectation", "refused", "no body", "too long"],
)
async def test_body_is_not_asked_for(sent: bytes, serve: Serve) -> None:
    answer = await serve(max_body_size=10).ask(sent)
    assert answer.informational == []
    assert answer.status in (200, 400, 413)


@gen_test
async def test_http_1_0_is_never_sent_an_informational_answer(serve: Serve) -> None:
    served = serve()
    client = await served.connect()
    client.send(with_body(b"/", EXPECT, version=b"HTTP/1.0"))
    await served.seen()
    answer = await client.ask(b"hello")
    assert (answer.json["body"], answer.informational) == ("hello", [])


@gen_test
async def test_chunk_extensions_and_trailers_are_passed_over(serve: Serve) -> None:
    client = await serve().connect()
    client.send(
        POST + CHUNKED + b'3;a;b=c;d="e;f"\r\nhel\r\n2\r\nlo\r\n000;x\r\n'
        b"Forged: x\r\nConnection: close\r\nUpgrade: h2c\r\n\r\n" + GET
    )
    answer = await client.answer()
    assert answer.json["body"] == "hello"
    assert answer.json["fields"] == ["host", "transfer-encoding"]
    assert (await client.answer()).json["body"] == ""


@gen_test
@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 28\r\n\r\n" + GET, b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ids=["length", "chunks"],
)
async def test_body_is_read_after_an_upgrade_was_asked_for(body: bytes, serve: Serve) -> None:
    served = serve()
    client = await served.connect()
    body = body.replace(b"28", b"%d" % len(GET))
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + body)
    assert (await client.answer()).json["body"] == (GET.decode() if GET in body else "")
    assert (await client.ask(CLOSE)).status == 200
    assert served.state.begun == ["/echo", "/"]


@gen_test
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("HEAD", "/"), ("HEAD", "/hinting"), ("HEAD", "/nowhere")),
        *(("GET", "/bare/204"), ("GET", "/bare/304")),
    ],
)
async def test_answer_without_a_body_ends_with_its_headers(
    method: str, path: str, serve: Serve
) -> None:
    client = await serve().connect()
    client.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + GET)
    assert (await client.answer(method)).body == b""
    assert (await client.answer()).json["uri"] == "/"


@gen_test
async def test_informational_answer_comes_before_the_other(serve: Serve) -> None:
    answer = await serve().ask(b"GET /hinting HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer.informational, answer.body) == (200, [103], b"hinted")
    assert "link" not in answer.headers


@gen_test
async def test_answer_of_unknown_length_is_chunked(serve: Serve) -> None:
    answer = await serve().ask(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == b"x" * MUCH


# Clients that read slowly, or leave.


async def standstill(state: State) -> int:
    """Wait until `Pieces` waits for its client; return how much it has written."""
    written, turns = -1, 0
    while turns < 50:
        turns = turns + 1 if written == state.written else 0
        written = state.written
        await asyncio.sleep(0.002)
    return written


@gen_test
async def test_flush_waits_for_a_client_that_reads_slowly(serve: Serve) -> None:
    served = serve()
    client = await served.connect(limit=1024)
    client.send(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.written)
    assert await standstill(served.state) < MUCH
    assert len((await client.answer()).body) == MUCH == served.state.written


@gen_test
async def test_flush_ends_when_the_client_leaves(serve: Serve) -> None:
    served = serve()
    client = await served.connect(limit=1024)
    client.send(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.written)
    await standstill(served.state)
    client.reset()
    await eventually(lambda: served.state.is_over)
    assert served.state.left == 1
    assert served.state.written < MUCH


@gen_test
@pytest.mark.parametrize("leave", [Client.reset, Client.half_close])
async def test_application_is_told_that_the_client_has_left(
    leave: Callable[[Client], None], serve: Serve
) -> None:
    served = serve()
    client = await served.connect()
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.begun)
    leave(client)
    await eventually(lambda: served.state.left == 1)


@gen_test
async def test_nothing_is_left_of_a_client_that_goes_after_it_was_answered(serve: Serve) -> None:
    served = serve(idle_connection_timeout=60.0)
    client = await served.connect()
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
    await eventually(lambda: served.state.begun)
    client.reset()
    served.state.go_on.set()
    await eventually(lambda: not served.server._open)


@gen_test
async def test_pipeline_is_answered_after_the_client_has_half_closed(serve: Serve) -> None:
    served = serve()
    client = await served.connect()
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n" + GET * 3 + GET[:-1])
    client.half_close()
    await eventually(lambda: served.state.begun)
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"
    for _ in range(3):
        assert (await client.answer()).json["uri"] == "/"
    assert await client.rest() == b""


@gen_test
@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("beyond", [b"", GET], ids=["as it should", "sending on"])
async def test_slow_reader_gets_the_whole_last_answer(
    beyond: bytes,
    over_tls: bool,
    serve: Serve,
    tls: Contexts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("http1.stream.LINGERING_CLOSE", 0.1)
    served = serve(ssl_options=tls.server if over_tls else None)
    options = {"ssl": tls.client, "server_hostname": "localhost"} if over_tls else {}
    client = await served.connect(limit=1024, **options)
    client.send(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n" + beyond)
    await eventually(lambda: served.state.begun)
    await asyncio.sleep(0.25)  # the client's time is what is measured
    assert len((await client.answer()).body) == MUCH


# Limits.


@gen_test
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 300, 431),
        (b"GET /" + b"x" * 300, 431),
        (POST + b"Content-Length: 301\r\n\r\n", 400),
        (POST + CHUNKED + b"12D\r\n" + b"x" * 301, 400),
        (POST + CHUNKED + b"5;" + b"x" * 300, 400),
        (POST + CHUNKED + b"0\r\nX: " + b"x" * 300, 400),
        (POST + CHUNKED + b"1\r\nx\r\n" * 99 + b"0\r\nX: " + b"x" * 300, 400),
        (b"\r\n" * 150, 431),
    ],
    ids=[
        *("headers", "request line", "length", "chunk", "chunk extension", "trailer"),
        *("trailer after small chunks", "empty lines"),
    ],
)  # fmt: skip
async def test_what_is_too_large_is_refused_before_it_ends(
    sent: bytes, status: int, serve: Serve
) -> None:
    served = serve(max_header_size=200, max_body_size=300)
    client = await served.connect()
    client.send(sent)
    assert await client.rest() == f"HTTP/1.1 {status} {responses[status]}\r\n\r\n".encode()
    assert served.state.begun == []


@gen_test
@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("header_timeout", GET[:1]),
        ("header_timeout", GET[:-1]),
        ("header_timeout", GET + GET[:-1]),
        ("body_timeout", with_body() + b"hell"),
        ("body_timeout", with_body(b"/", EXPECT)),
        ("idle_connection_timeout", b""),
        ("idle_connection_timeout", b"\r\n"),
        ("idle_connection_timeout", GET),
    ],
    ids=repr,
)
async def test_what_takes_too_long_is_told_so_and_closed_and_idle_ones_are_closed(
    limit: str, sent: bytes, serve: Serve
) -> None:
    options = {"idle_connection_timeout": 60.0, "header_timeout": 60.0, "body_timeout": 60.0}
    served = serve(**options | {limit: 0.1})
    client = await served.connect()
    client.send(sent)
    data = await client.rest()
    assert data.count(b"HTTP/1.1 200 OK") == sent.count(GET)
    has_begun = limit != "idle_connection_timeout"
    assert data.count(b"HTTP/1.1 408 Request Timeout\r\n\r\n") == has_begun
    assert b"400" not in data


@gen_test
async def test_limit_of_a_header_begins_with_its_first_byte(serve: Serve) -> None:
    client = await serve(header_timeout=0.1).connect()
    for _ in range(3):
        await asyncio.sleep(0.075)  # it is time that is measured
        assert (await client.ask(GET)).status == 200


@gen_test
async def test_no_limit_ends_an_answer_that_takes_its_time(serve: Serve) -> None:
    served = serve(idle_connection_timeout=0.1, header_timeout=0.1, body_timeout=0.1)
    client = await served.connect()
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.begun)
    await asyncio.sleep(0.2)  # it is time that is measured
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"


@gen_test
@pytest.mark.parametrize("path", ["/pieces", "/whole"])
async def test_client_that_reads_nothing_is_not_kept_as_long_as_an_idle_one(
    path: str, serve: Serve
) -> None:
    served = serve(idle_connection_timeout=600.0, write_timeout=0.1)
    client = await served.connect(limit=1024)
    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await eventually(lambda: served.state.begun)
    await eventually(lambda: not served.server.connections)


@gen_test
async def test_client_that_reads_slowly_may_take_longer_than_an_idle_one(serve: Serve) -> None:
    served = serve(idle_connection_timeout=0.1, write_timeout=600.0)
    client = await served.connect(limit=1024)
    client.send(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.written)
    await standstill(served.state)
    await asyncio.sleep(0.25)  # the client's time is what is measured
    assert len((await client.answer()).body) == MUCH


# Who asks, and for what.


@gen_test
async def test_forwarded_address_counts_for_its_own_request_alone(serve: Serve) -> None:
    client = await serve(xheaders=True, trusted_downstream=["5.5.5.5"]).connect()
    forwarded = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 4.4.4.4, 5.5.5.5\r\n"
        b"X-Forwarded-Proto: https\r\n\r\n"
    )
    answer = await client.ask(forwarded)
    assert (answer.json["ip"], answer.json["protocol"]) == ("4.4.4.4", "https")
    answer = await client.ask(GET)
    assert (answer.json["ip"], answer.json["protocol"]) == ("127.0.0.1", "http")


@gen_test
async def test_forwarded_address_is_not_believed_unasked(serve: Serve) -> None:
    answer = await serve().ask(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Real-Ip: 4.4.4.4\r\nX-Forwarded-For: 4.4.4.4\r\n\r\n"
    )
    assert answer.json["ip"] == "127.0.0.1"


@gen_test
@pytest.mark.parametrize(
    ("network", "ip", "protocol"),
    [("127.0.0.0/8", "4.4.4.4", "https"), ("10.0.0.0/8", "127.0.0.1", "http")],
)
async def test_trusted_proxies_alone_are_believed_and_for_their_own_request_alone(
    network: str, ip: str, protocol: str, serve: Serve
) -> None:
    client = await serve(trusted_proxies=[ipaddress.ip_network(network)]).connect()
    forwarded = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-Ip: 7.7.7.7\r\n"
        b"X-Forwarded-Proto: ftp\r\nX-Scheme: ftp\r\nX-Forwarded-For: 4.4.4.4\r\n"
        b"X-Forwarded-Proto: https\r\n\r\n"
    )
    plain = ("127.0.0.1", "http")
    for request, expected in (
        (forwarded, (ip, protocol)),
        (GET, plain),
        (forwarded, (ip, protocol)),
    ):
        answer = await client.ask(request)
        assert (answer.json["ip"], answer.json["protocol"]) == expected


@gen_test
@pytest.mark.parametrize(
    ("target", "uri", "host"),
    [
        (b"http://b/echo?x=y", "/echo?x=y", "b"),
        (b"HTTP://B:80", "/", "B:80"),
        (b"https://[::1]:8/", "/", "[::1]:8"),
        (b"http://b?x", "/?x", "b"),
    ],
)
async def test_absolute_form_names_host_and_path(
    target: bytes, uri: str, host: str, serve: Serve
) -> None:
    answer = await serve().ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.json["uri"], answer.json["host"]) == (uri, host)


@gen_test
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"OPTIONS *", 404),  # 3.2.4: the server as a whole, of which the application has no page
        (b"CONNECT a:80", 405),
        (b"CONNECT /", 405),
        (b"OPTIONS http://a", 200),  # 3.2.4 has it sent on as "*", which is for proxies
        (b"M-SEARCH /", 405),
    ],
)
async def test_every_form_of_target_is_answered(line: bytes, status: int, serve: Serve) -> None:
    client = await serve().connect()
    assert (await client.ask(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")).status == status
    assert (await client.ask(GET)).status == 200


# What is refused, beyond the table of `tests/faults/test_clients.py`.

REFUSED = {
    "absolute form with a Host that is none": b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    "absolute form with a port alone": b"GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form without a host": b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "codings chunked, identity": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "codings identity, chunked": b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "coding and a comma": b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "codings on two lines": b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"0\r\n\r\n",
    "coding and length in other cases": b"content-length: 5\r\n" + CHUNKED.upper() + b"0\r\n\r\n",
    "coding and no length": b"Content-Length: 0\r\n" + CHUNKED + b"0\r\n\r\n",
    "length with a semicolon": b"Content-Length: 5;\r\n\r\nhello",
    "length in quotes": b'Content-Length: "5"\r\n\r\nhello',
    "length twice in other cases": b"Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "length with an exponent": b"Content-Length: 5e0\r\n\r\nhello",
    "length after a form feed": b"Content-Length: \x0c5\r\n\r\nhello",
    "chunk without its line end": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "chunk size before a tab": CHUNKED + b"5\t\r\nhello\r\n0\r\n\r\n",
    "chunk size in two words": CHUNKED + b"5 5\r\nhello\r\n0\r\n\r\n",
    "chunk extension with CR": CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "chunk extension with NUL": CHUNKED + b"5;\0\r\nhello\r\n0\r\n\r\n",
    "chunk extension before a space": CHUNKED + b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": CHUNKED + b"0\r\nX\r\n\r\n",
    "trailer with a space before its colon": CHUNKED + b"0\r\nX : y\r\n\r\n",
    "trailer with NUL": CHUNKED + b"0\r\nX: \0\r\n\r\n",
    "trailer ended by LF": CHUNKED + b"0\r\nX: y\n\r\n",
    "trailer folded": CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n",
    "trailer with a length": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
}  # fmt: skip


@gen_test
@pytest.mark.parametrize("name", REFUSED)
async def test_malformed_request_reaches_no_handler(name: str, serve: Serve) -> None:
    served = serve()
    sent = REFUSED[name]
    if not sent.startswith(b"GET"):
        sent = POST + sent
    client = await served.connect()
    assert (await client.ask(sent + GET)).status == 400
    assert await client.rest() == b""
    assert served.state.begun == []


@gen_test
@pytest.mark.parametrize(
    "sent",
    [
        *(b"\x00", b" ", b"\n", b"\r\r", b"GET\t", b"GET  ", b"GET /\0", b"GET / P", b"GET / \r"),
        *(b"GET / HTTP/1.1\n", b"GET / HTTP/1.1 ", b"GET /\r\n", b"G\xc3\xa9", b"[", TLS_HELLO),
        *(b"GET / HTTP/1.1\r\nX\0", b"GET / HTTP/1.1\r\n ", b"GET / HTTP/1.1\r\nX: y\rz"),
    ],
)
async def test_what_cannot_become_a_request_is_refused_at_once(sent: bytes, serve: Serve) -> None:
    client = await serve().connect()
    assert (await client.ask(sent)).status == 400


# The same, however it is cut.

CUT = {
    "request": GET,
    "body": with_body() + b"hello",
    "chunks": POST + CHUNKED + b'5;a="b"\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n',
    "pipeline": b"\r\n" + with_body() + b"helloHEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    "upgrade": with_body(b"/", b"Upgrade: h2c", b"Connection: Upgrade") + b"hello",
    "absolute form": b"GET http://b/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "bad chunk": POST + CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
    "bad header": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "bad second request": GET + b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
}  # fmt: skip


@gen_test
@pytest.mark.parametrize("name", CUT)
async def test_answers_are_the_same_wherever_a_request_is_cut(name: str, serve: Serve) -> None:
    sent = CUT[name] + CLOSE
    served = serve()
    clients = [await served.connect() for _ in range(len(sent))]
    for cut, client in enumerate(clients):
        client.send(sent[:cut])
    await served.seen()
    for cut, client in enumerate(clients):
        client.send(sent[cut:])
    answers = {re.sub(rb"Date: .*\r\n", b"", await client.rest()) for client in clients}
    assert len(answers) == 1
    [answer] = answers
    refused = name.startswith("bad")
    assert (b"HTTP/1.1 400 Bad Request\r\n" in answer) == refused
    assert answer.endswith(b"\r\n\r\n" if refused else b"}")


# Listening, TLS, and the end.


@gen_test
async def test_client_of_tls_shows_its_certificate(serve: Serve, tls: Contexts) -> None:
    client = await serve(ssl_options=tls.server).connect(
        ssl=tls.client, server_hostname="localhost"
    )
    answer = await client.ask(b"GET /certificate HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.json["names"] == [["DNS", "client.example"]]
    assert (await client.ask(CLOSE)).json["protocol"] == "https"
    assert await client.rest() == b""


@gen_test
async def test_back_pressure_and_pipelines_work_over_tls(serve: Serve, tls: Contexts) -> None:
    served = serve(ssl_options=tls.server)
    client = await served.connect(ssl=tls.client, server_hostname="localhost", limit=1024)
    client.send(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n" + with_body() + b"hello" + CLOSE)
    await eventually(lambda: served.state.written)
    assert await standstill(served.state) < MUCH
    assert len((await client.answer()).body) == MUCH
    assert (await client.answer()).json["body"] == "hello"
    assert (await client.answer()).json["body"] == ""
    assert await client.rest() == b""


@gen_test
async def test_client_that_speaks_no_tls_is_closed(serve: Serve, tls: Contexts) -> None:
    client = await serve(ssl_options=tls.server).connect()
    assert b"HTTP" not in await client.send(GET).rest()


@gen_test
@pytest.mark.parametrize("limits", [{"idle_connection_timeout": 0.1}, {"header_timeout": 0.1}])
async def test_handshake_that_does_not_end_is_closed(
    limits: dict[str, float], serve: Serve, tls: Contexts
) -> None:
    client = await serve(ssl_options=tls.server, **limits).connect()
    assert b"HTTP" not in await client.send(TLS_HELLO[:9]).rest()


@gen_test
async def test_handshakes_that_fail_are_one_warning_a_minute(
    serve: Serve,
    tls: Contexts,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG, "tornado.general")
    served = serve(ssl_options=tls.server)

    async def fail() -> str:
        seen = len(caplog.records)
        await (await served.connect()).send(GET).rest()
        await eventually(lambda: len(caplog.records) > seen)
        return caplog.records[-1].levelname

    assert [await fail() for _ in range(3)] == ["WARNING", "DEBUG", "DEBUG"]
    assert all("SSL Error" in record.message for record in caplog.records)
    served.server._warn_of_tls_at -= TLS_WARNINGS_EVERY
    assert await fail() == "WARNING"


@gen_test
async def test_another_context_is_for_the_connections_to_come(serve: Serve, tls: Contexts) -> None:
    served = serve(ssl_options=tls.server)
    old = await served.connect(ssl=tls.client, server_hostname="localhost")
    another = trustme.CA()
    served.server.ssl_options = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    another.issue_cert("localhost").configure_cert(served.server.ssl_options)
    with pytest.raises(ssl.SSLCertVerificationError):
        await served.connect(ssl=tls.client, server_hostname="localhost")
    trusting = ssl.create_default_context()
    another.configure_trust(trusting)
    new = await served.connect(ssl=trusting, server_hostname="localhost")
    for client in (old, new):
        assert (await client.ask(CLOSE)).json["protocol"] == "https"


@gen_test
async def test_options_of_tls_may_be_a_dict(serve: Serve, folder: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "pem")
    served = serve(ssl_options={"certfile": str(folder / "pem")})
    (folder / "pem").unlink()  # it has been read
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client = await served.connect(ssl=context, server_hostname="localhost")
    assert (await client.ask(CLOSE)).json["protocol"] == "https"


@gen_test
@pytest.mark.parametrize("asks_first", [True, False])
async def test_draining_tells_idle_clients_of_tls_and_does_not_wait_for_them(
    asks_first: bool, serve: Serve, tls: Contexts
) -> None:
    served = serve(ssl_options=tls.server)

    def visit() -> ssl.SSLSocket:
        """As a client does that looks at its connection only when it needs it again."""
        plain = socket.create_connection(("127.0.0.1", served.port), PATIENCE)
        client = tls.client.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        )
        if asks_first:
            client.sendall(GET)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        return client

    with await asyncio.to_thread(visit) as client:
        async with asyncio.timeout(PATIENCE):
            await served.server.drain(3600)
        assert await asyncio.to_thread(client.recv, 1) == b""  # the close of TLS, not of TCP alone


@gen_test
async def test_idle_client_of_tls_is_told_of_the_close_at_its_timeout(
    serve: Serve, tls: Contexts
) -> None:
    served = serve(ssl_options=tls.server, idle_connection_timeout=0.2)

    def visit() -> bytes:
        plain = socket.create_connection(("127.0.0.1", served.port), PATIENCE)
        with tls.client.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        ) as client:
            client.sendall(GET)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            return client.recv(1)  # raises where TCP alone is closed

    assert await asyncio.to_thread(visit) == b""
    await eventually(lambda: not served.server.connections)


@gen_test
async def test_client_that_does_not_answer_the_close_of_tls_is_closed(
    serve: Serve, tls: Contexts
) -> None:
    served = serve(ssl_options=tls.server, write_timeout=0.1)

    def visit() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", served.port), PATIENCE)
        client = tls.client.wrap_socket(plain, server_hostname="localhost")
        client.sendall(CLOSE)
        return client

    with await asyncio.to_thread(visit):
        await eventually(lambda: served.state.begun)
        await eventually(lambda: not served.server.connections)


@gen_test
@pytest.mark.parametrize("path", [b"/", b"/waiting"])
async def test_client_of_tls_that_sends_close_notify_behind_its_request_is_let_go(
    path: bytes, serve: Serve, tls: Contexts
) -> None:
    """It might still read (RFC 8446, 6.1), but the event loop ends both sides."""
    served = serve(ssl_options=tls.server)

    def visit() -> bytes:
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = tls.client.wrap_bio(received, sent, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as client:
            while not is_done(session.do_handshake):
                client.sendall(sent.read())
                received.write(client.recv(65536))
            session.write(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            is_done(session.unwrap)
            client.sendall(sent.read())  # in one packet
            rest = b""
            with contextlib.suppress(ConnectionResetError):
                while more := client.recv(65536):
                    rest += more
            return rest

    await asyncio.to_thread(visit)
    assert served.state.begun == [path.decode()]
    served.state.go_on.set()
    await eventually(lambda: not served.server.connections)


def is_done(step: Callable[[], object]) -> bool:
    """Take a step of TLS; tell whether it waits for nothing that the other side sends."""
    try:
        step()
    except ssl.SSLWantReadError:
        return False
    return True


@gen_test
@pytest.mark.parametrize("options", [{}, {"trusted_proxies": EVERYBODY}], ids=["", "proxies"])
async def test_unix_socket_is_served_and_no_address_is_made_up_for_it(
    options: dict[str, Any], serve: Serve, folder: Path
) -> None:
    served = serve(**options)
    served.server.add_socket(bind_unix_socket(str(folder / "http.sock")))
    reader, writer = await asyncio.open_unix_connection(str(folder / "http.sock"))
    named = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 4.4.4.4\r\n\r\n"
    with contextlib.closing(writer):
        client = Client(reader, writer).send(GET + named + CLOSE)
        for _ in range(3):
            assert (await client.answer()).json["ip"] == "unix"
        assert await client.rest() == b""


def listen(server: HTTPServer) -> None:
    server.listen(0, "127.0.0.1")


def bind_and_start(server: HTTPServer) -> None:
    server.bind(0, "127.0.0.1")
    server.start()


def add_sockets(server: HTTPServer) -> None:
    server.add_sockets(bind_sockets(0, "127.0.0.1"))


@gen_test
@pytest.mark.parametrize("start", [listen, bind_and_start, add_sockets])
@pytest.mark.filterwarnings("ignore:.*bind.* deprecated:DeprecationWarning")
async def test_server_listens_until_it_is_stopped(
    start: Callable[[HTTPServer], None], serve: Serve
) -> None:
    served = serve()
    before = served.server.listening_sockets
    start(served.server)
    [listening] = [one for one in served.server.listening_sockets if one not in before]
    served.port = listening.getsockname()[1]
    client = await served.connect()
    assert (await client.ask(GET)).status == 200
    served.server.stop()
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    assert (await client.ask(GET)).status == 200  # what is open is not closed


@gen_test
async def test_every_connection_is_closed_whatever_is_under_way(serve: Serve) -> None:
    served = serve()
    clients = [await served.connect() for _ in range(4)]
    for client, sent in zip(clients, [b"", GET[:9], b"GET /waiting", b"GET /pieces"], strict=True):
        client.send(sent if sent in GET else sent + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: len(served.state.begun) == 2)
    await served.server.close_all_connections()
    for client in clients:
        assert b"0\r\n\r\n" not in (await client.rest())[-5:]
    assert served.state.left == 2


@gen_test
async def test_draining_closes_what_is_idle_and_finishes_what_is_not(serve: Serve) -> None:
    served = serve()
    idle, half, busy = [await served.connect() for _ in range(3)]
    half.send(GET[:9])
    busy.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.begun)
    drained = asyncio.ensure_future(served.server.drain(60))
    assert await idle.rest() == await half.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    assert not drained.done()
    served.state.go_on.set()
    answer = await busy.answer()
    assert (answer.body, answer.headers["connection"]) == (b"at last", "close")
    assert await busy.rest() == b""
    await drained


@gen_test
async def test_draining_ends_when_the_grace_is_over(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    client = await served.connect()
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.begun)
    await served.server.drain(0.1)
    assert await client.rest() == b""
    assert [record.message for record in caplog.records] == [
        "1 requests were not finished in 0.1 s"
    ]


@gen_test
async def test_draining_waits_for_no_handshake(serve: Serve, tls: Contexts) -> None:
    served = serve(ssl_options=tls.server)
    client = await served.connect()
    client.send(TLS_HELLO[:9])
    await eventually(lambda: served.server._open)
    async with asyncio.timeout(30):
        await served.server.drain(60)
    assert await client.rest() == b""


@gen_test
@pytest.mark.parametrize("kind", [HTTPServer, tornado.httpserver.HTTPServer])
async def test_tornados_server_can_serve_the_same_application(
    kind: type[HTTPServer], serve: Serve
) -> None:
    served = serve(kind)
    client = await served.connect()
    assert (await client.ask(with_body() + b"hello")).json["body"] == "hello"
    assert (await client.ask(b"GET /bare/204 HTTP/1.1\r\nHost: a\r\n\r\n")).status == 204
    assert len((await client.ask(b"GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n")).body) == MUCH


@gen_test
async def test_a_connection_that_is_accepted_as_all_are_closed_is_closed_too(serve: Serve) -> None:
    served = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.connect(("127.0.0.1", served.port))  # in the queue: the loop has not turned
        left: list[object] = []
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(
            "sys.unraisablehook", lambda what: left.append(what.exc_value)
        )
        served.server.stop()
        await served.server.close_all_connections()
        assert not served.server.connections
        await asyncio.sleep(0)
        gc.collect()
        assert not left


# Room for others.


async def idle(served: Served, **options: Any) -> Client:
    """A client that was answered, a while later than the one before."""
    client = await served.connect(**options)
    assert (await client.ask(GET)).status == 200
    await asyncio.sleep(0.01)  # it is time that makes an order
    return client


@gen_test
async def test_those_idle_longest_make_room_and_nobody_else_does(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(max_connections=5)
    busy, half, silent = [await served.connect() for _ in range(3)]
    busy.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    half.send(GET[:9])
    await eventually(lambda: served.state.begun)
    first, second = await idle(served), await idle(served)
    assert not caplog.records
    third = await idle(served)  # for whom there is no room
    assert await silent.rest() == b""
    assert (await first.ask(GET)).status == 200  # so it is not the next
    await asyncio.sleep(0.01)
    fourth = await idle(served)
    assert await second.rest() == b""
    fifth = await idle(served)
    assert await third.rest() == b""
    for client in (first, fourth, fifth):
        assert (await client.ask(GET)).status == 200
    assert (await half.ask(GET[9:])).status == 200
    served.state.go_on.set()
    assert (await busy.answer()).body == b"at last"
    assert [record.message for record in caplog.records] == [
        "no room beside 5 connections: those idle longest are closed; "
        "when none is idle, new ones wait"
    ]


@gen_test
async def test_without_idle_ones_new_ones_wait_until_there_is_room(serve: Serve) -> None:
    served = serve(max_connections=2)
    waiting = b"GET /waiting HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    busy = [(await served.connect()).send(waiting) for _ in range(2)]
    await eventually(lambda: len(served.state.begun) == 2)
    late = (await served.connect()).send(GET)  # in the queue
    await asyncio.sleep(0.25)  # in which it is looked for room
    assert served.server.connections == len(served.state.begun) == 2
    served.state.go_on.set()
    assert (await late.answer()).status == 200
    for client in busy:
        assert (await client.answer()).body == b"at last"


@gen_test
async def test_client_that_has_just_come_may_ask_before_it_makes_room(serve: Serve) -> None:
    served = serve(max_connections=1)
    first = await served.connect()
    await eventually(lambda: served.server.connections)
    second = (await served.connect()).send(GET)
    await eventually(lambda: served.server._acceptor.is_waiting)
    assert (await first.ask(GET)).status == 200
    assert (await second.answer()).status == 200
    assert await first.rest() == b""


@gen_test
async def test_client_that_sends_requests_ahead_makes_room_between_two_of_them(
    serve: Serve,
) -> None:
    served = serve(max_connections=2)
    busy = (await served.connect()).send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    await eventually(lambda: served.state.begun)
    ahead = (await served.connect()).send(GET * 5000)
    late = (await served.connect()).send(GET)
    rest = await ahead.rest()
    ahead.writer.close()
    assert (await late.answer()).status == 200
    assert 0 < rest.count(b"HTTP/1.1 200 OK\r\n") < 5000
    assert rest.endswith(b"}"), "what is answered arrives whole"
    served.state.go_on.set()
    assert (await busy.answer()).body == b"at last"
    assert (await busy.answer()).status == 200


@gen_test
async def test_clients_that_wait_for_room_are_let_in_when_listening_ends(serve: Serve) -> None:
    served = serve(max_connections=1)
    busy = (await served.connect()).send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.begun)
    late = [(await served.connect()).send(GET) for _ in range(3)]
    await eventually(lambda: served.server._acceptor.is_waiting)
    served.server.stop()
    for client in late:
        assert (await client.answer()).status == 200
    served.state.go_on.set()
    assert (await busy.answer()).body == b"at last"


@gen_test
async def test_one_that_becomes_idle_makes_room_for_those_that_wait(serve: Serve) -> None:
    served = serve(max_connections=1)
    busy = (await served.connect()).send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: served.state.begun)
    late = (await served.connect()).send(GET)
    served.state.go_on.set()
    assert (await late.answer()).status == 200
    assert (await busy.answer()).body == b"at last"
    assert await busy.rest() == b""


@gen_test
async def test_request_that_has_arrived_and_is_not_read_keeps_its_connection(serve: Serve) -> None:
    served = serve()
    clients = [await idle(served) for _ in range(3)]
    await asyncio.sleep(0.2)  # for so long nobody has to go
    for client in clients[:2]:
        os.write(client.writer.get_extra_info("socket").fileno(), GET)
    served.server.make_room()  # before anything turns that reads
    for client in clients[:2]:
        assert (await client.answer()).status == 200
    assert await clients[2].rest() == b""


@gen_test
async def test_idle_ones_that_have_asked_do_not_keep_others_from_making_room(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http1.server.LEAST_STALLED", 0.1)
    served = serve()
    half = (await served.connect()).send(GET[:9])
    await served.seen()
    client = await idle(served)
    await asyncio.sleep(0.2)
    os.write(client.writer.get_extra_info("socket").fileno(), GET)
    served.server.make_room()  # before anything turns that reads
    assert (await client.answer()).status == 200
    assert await half.rest() == b""


@gen_test
async def test_handshake_that_is_not_begun_makes_room(serve: Serve, tls: Contexts) -> None:
    served = serve(ssl_options=tls.server, max_connections=1)
    silent = await served.connect()
    await eventually(lambda: served.server.connections)
    await asyncio.sleep(0.01)
    for _ in range(3):
        client = await idle(served, ssl=tls.client, server_hostname="localhost")
        assert await silent.rest() == b""
        silent = client


@gen_test
async def test_full_server_leaves_the_clients_of_its_siblings_to_them(serve: Serve) -> None:
    served, sibling = serve(max_connections=2), serve()
    sibling.server._acceptor._listen(is_waiting=True)  # it hangs
    looking = asyncio.ensure_future(
        served.server.accept_for_siblings([sibling.server.listening_sockets[0].dup()])
    )
    waiting = b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n"
    for _ in range(2):
        (await served.connect()).send(waiting)
    await eventually(lambda: len(served.state.begun) == 2)
    (await sibling.connect()).send(GET)
    await asyncio.sleep(0.25)  # in which it looks
    assert served.server.connections == 2
    looking.cancel()
