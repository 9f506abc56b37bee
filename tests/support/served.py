"""An HTTP server on a port of its own, and clients that send it bytes and read it as h11 does."""

import asyncio
import contextlib
import functools
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

import h11
import trustme
from tornado.testing import bind_unused_port
from tornado.web import Application

from http1 import HTTPServer
from tests.support.raw_http import reset
from tests.support.site import State, application
from tests.support.waiting import PATIENCE


def get(path: str = "/", *lines: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A request that has these header lines, too; a body may follow."""
    return "\r\n".join([f"{method} {path} {version}", "Host: a", *lines, "", ""]).encode("latin1")


def post(*lines: str, path: str = "/", version: str = "HTTP/1.1") -> bytes:
    """What a request with the body ``hello`` begins with."""
    return get(path, "Content-Length: 5", *lines, method="POST", version=version)


GET = get()
CLOSE = get("/", "Connection: x, Close")
WAITING = get("/waiting")
CHUNKED = get("/", "Transfer-Encoding: chunked", method="POST")
EXPECT = "Expect: 100-continue"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    informational: list[int]

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Client:
    """Sends bytes, and reads answers as h11 does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.close, self.half_close = writer.close, writer.write_eof
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

    def reset(self) -> None:
        sock = socket.socket(fileno=socket.dup(self.writer.get_extra_info("socket").fileno()))
        self.writer.transport.abort()
        reset(sock)


class Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@functools.cache
def two_sides() -> Contexts:
    """Both sides of TLS, each with a certificate that the other trusts."""
    authority = trustme.CA()
    contexts = Contexts(
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    )
    contexts.server.verify_mode = ssl.CERT_OPTIONAL
    for context, name in zip(contexts, ("localhost", "client.example"), strict=True):
        authority.issue_cert(name).configure_cert(context)
        authority.configure_trust(context)
    return contexts


class Served:
    """A server on a port of its own, with its clients.

    :arg app: in place of `tests.support.site`.
    :arg tls: whether clients are spoken to with it, and speak with it.
    :arg options: of the server.
    """

    def __init__(
        self,
        kind: Callable[..., Any] = HTTPServer,
        app: Application | None = None,
        tls: bool = False,
        **options: Any,
    ) -> None:
        self.state = State()
        self.tls = tls
        options = {"ssl_options": two_sides().server if tls else None} | options
        self.server: HTTPServer = kind(app or application(self.state), **options)
        self._clients: list[Client] = []
        sock, self.port = bind_unused_port()
        self.server.add_socket(sock)

    async def connect(
        self, limit: int = 65536, *, in_clear: bool = False, sock: socket.socket | None = None
    ) -> Client:
        """:arg sock: that is connected already."""
        options: dict[str, Any] = {"limit": limit}
        if self.tls and not in_clear:
            options |= {"ssl": two_sides().client, "server_hostname": "localhost"}
        options |= {"sock": sock} if sock else {"host": "127.0.0.1", "port": self.port}
        self._clients.append(Client(*await asyncio.open_connection(**options)))
        return self._clients[-1]

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        return await (await self.connect()).ask(data, method)

    async def seen(self) -> None:
        """Wait until the server has read what was sent before."""
        for _ in range(2):
            assert (await self.ask(CLOSE)).status == 200

    async def leave(self) -> None:
        while self._clients:
            self._clients.pop().close()

    async def close(self) -> None:
        await self.leave()
        self.server.stop()
        await self.server.close_all_connections()
        await asyncio.sleep(0)


Serve = Callable[..., Served]
