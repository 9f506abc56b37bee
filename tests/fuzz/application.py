"""An application that answers in many ways, by path, and remembers what it was asked."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, NamedTuple

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError

from http1.busy_poll import BusyPoll
from http1.first_look import FirstLook
from http1.outbox import Outbox
from http1.turns import Turns

#: Each is a way to answer; every other path is answered at once.
PATHS = (
    "/",
    "/later",  # some turns of the loop after the request
    "/held",  # as "/", and its request is read slowly
    "/begun",  # the answer's head is sent before the body is read
    "/large",  # in pieces, as fast as the client reads
    "/empty",  # 204
    "/unchanged",  # 304, with the length of what is not sent
    "/early",  # before the body is read, which ends the connection
    "/last",  # with Connection: close
)

#: No request is read after one of these.
LAST = ("/early", "/last")

#: Their answers have no Content-Length.
UNMEASURED = ("/begun", "/large")

LARGE = 2000  # bytes


class Request(NamedTuple):
    method: str
    target: str
    headers: dict[str, list[str]]
    body: bytes | None  # None when it was answered before it was read


class Application(HTTPServerConnectionDelegate):
    """Keeps the requests that it was to answer, in the order in which they came."""

    def __init__(self, outbox: Outbox) -> None:
        self.draining = asyncio.Event()
        self.busy_poll, self.outbox, self.turns = BusyPoll(), outbox, Turns()
        self.first_look = FirstLook(0.0)
        self.requests: list[Request] = []
        self.steps = 0  # grows whenever something goes on
        self._closed = 0
        self._messages: list[Message] = []

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        self._messages.append(Message(self, request_conn))
        return self._messages[-1]

    def on_close(self, server_conn: object) -> None:
        self._closed += 1

    def check_ended(self) -> None:
        """Assert that the connection and every message came to an end that was told."""
        assert self._closed == 1
        for message in self._messages:
            assert message.has_ended, f"nobody has told of the end of {message.start_line}"


class Message(HTTPMessageDelegate):
    """Reads a request, and answers it in the way of its path."""

    has_ended = False
    start_line: Any = None
    _body = b""

    def __init__(self, application: Application, connection: Any) -> None:
        self._application = application
        self._connection = connection

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Awaitable[None] | None:
        # Tornado's applications make one, which refuses some.
        HTTPServerRequest(connection=self._connection, start_line=start_line, headers=headers)
        self.start_line, self._headers = start_line, headers
        self._way = "" if start_line.method == "CONNECT" else start_line.path.partition("?")[0]
        self._application.steps += 1
        if self._way == "/early":
            self._note(None)
            self._answer(b"early")
        elif self._way == "/begun":
            self._write_head(200)
        return _turns(2) if self._way == "/held" else None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._body += chunk
        self._application.steps += 1
        return _turns(1) if self._way == "/held" else None

    def finish(self) -> None:
        self._note(self._body)
        # Tornado's RequestHandler does: it is how a client's leaving is heard of from now on.
        self._connection.set_close_callback(self.on_connection_close)
        match self._way:
            case "/later":
                self._answering = asyncio.ensure_future(self._answer_later())
            case "/large":
                self._answering = asyncio.ensure_future(self._answer_in_pieces())
            case "/begun":
                self._connection.write(self._sent(b"begun"))
                self._end()
            case "/empty":
                self._answer(None, status=204)
            case "/unchanged":
                self._answer(None, status=304)
            case way:  # a tunnel begins with 2xx for CONNECT (RFC 9110, 9.3.6)
                self._answer(b"%d bytes" % len(self._body), 200 if way else 405)

    def on_connection_close(self) -> None:
        self.has_ended = True
        self._application.steps += 1

    def _note(self, body: bytes | None) -> None:
        method, target, _ = self.start_line
        fields = {name.lower(): self._headers.get_list(name) for name in self._headers}
        self._application.requests.append(Request(method, target, fields, body))
        self._number = len(self._application.requests)

    async def _answer_later(self) -> None:
        await _turns(5)
        self._answer(b"later")

    async def _answer_in_pieces(self) -> None:
        with contextlib.suppress(StreamClosedError):  # of which it is told as well
            await self._write_head(200)
            for _ in range(LARGE // 200 if self._sent(b"x") else 0):
                await self._connection.write(b"x" * 200)
            self._end()

    def _answer(self, body: bytes | None, status: int = 200) -> None:
        self._write_head(status, body)
        self._end()

    def _sent(self, body: bytes) -> bytes:
        return b"" if self.start_line.method == "HEAD" else body

    def _write_head(self, status: int, body: bytes | None = None) -> Awaitable[None]:
        headers = HTTPHeaders()
        if self._way != "/begun":  # which has no number yet
            headers["Number"] = str(self._number)
        if status == 304:
            headers["Content-Length"] = "1234"
        elif body is not None:
            headers["Content-Length"] = str(len(body))
        if self._way == "/last":
            headers["Connection"] = "close"
        line = ResponseStartLine("HTTP/1.1", status, "So")
        return self._connection.write_headers(line, headers, self._sent(body or b"") or None)

    def _end(self) -> None:
        self._connection.finish()
        self._application.steps += 1
        self.has_ended = True


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)
