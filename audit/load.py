"""The load: visits made many at once, and what became of each."""

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient

#: A page is some hundred bytes; what is larger is not one.
MOST_BYTES = 64 * 1024

#: What a balancer without a replica answers: a failure that may pass, not another service.
UNAVAILABLE = (502, 503, 504)


class NotFriendlyhello(Exception):
    """What answers at the URL is something else; the message is one line."""


class Visit(NamedTuple):
    """What became of one visit."""

    at: float
    """When it began, in seconds since the load did."""
    seconds: float
    """How long it took."""
    replica: str | None = None
    """The hostname that answered; None when none did."""
    number: int | None = None
    """The number that was shown; None for the fallback page and for a failure."""
    failure: str | None = None
    """Why it was not answered by a page; None when it was."""

    @property
    def end(self) -> float:
        """When it was over, in seconds since the load began."""
        return self.at + self.seconds


class Load:
    """Visits a page until it has done so often enough, or for long enough, or is stopped.

    :arg url: of the page, ``http://`` or ``https://``.
    :arg requests: how many visits to make; None for no limit.
    :arg duration: seconds after which no visit begins; None for no limit.
    :arg concurrency: visits under way at once, at most.
    :arg rate: visits begun in a second, at most; None for no limit.
    :arg timeout: seconds after which a visit has failed, connecting included.
    :arg keep_alive: send one visit after the other on a connection, instead of opening one
        for each, as balancers choose a replica per connection.
    :raises ValueError: for a URL that is no such.
    """

    def __init__(
        self,
        url: str,
        *,
        requests: int | None = None,
        duration: float | None = None,
        concurrency: int = 16,
        rate: float | None = None,
        timeout: float = 10.0,
        keep_alive: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if not url.isprintable() or " " in url or not url.isascii():
            raise ValueError("not a URL")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("not an http:// or https:// URL")
        parts.hostname.encode("idna")  # as looking it up does; UnicodeError is a ValueError
        self.visits: list[Visit] = []
        self._host = parts.hostname
        self._port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._start_line = RequestStartLine(
            "GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), "HTTP/1.1"
        )
        self._headers = HTTPHeaders(
            {"Host": parts.netloc, "Accept": "application/json", "User-Agent": "check.py"}
        )
        if not keep_alive:
            self._headers["Connection"] = "close"
        self._left = requests
        self._duration = duration
        self._concurrency = concurrency
        self._rate = rate
        self._timeout = timeout
        self._keep_alive = keep_alive
        self._stopped = asyncio.Event()
        self._client = TCPClient()
        self._clock: Callable[[], float] = lambda: 0.0
        self._next_start = 0.0

    def stop(self) -> None:
        """Begin no further visit; those under way are finished, as they may have counted."""
        self._stopped.set()

    @property
    def now(self) -> float:
        """Seconds since the load began, until it ended."""
        return self._clock()

    async def run(self) -> None:
        """Make the visits; each is appended to ``visits`` when it is over.

        :raises NotFriendlyhello: when the first visit is answered by something else.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._clock = lambda: loop.time() - began
        try:
            if await self._take_turn():
                stream = await self._visit(None, first=True)
                if stream is not None:
                    stream.close()
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._visit_repeatedly())
        finally:
            ended = self.now
            self._clock = lambda: ended
            self._client.close()

    async def _visit_repeatedly(self) -> None:
        stream: IOStream | None = None
        while await self._take_turn():
            stream = await self._visit(stream)
        if stream is not None:
            stream.close()

    async def _take_turn(self) -> bool:
        """Wait for the time to begin a visit; False when there is none to begin."""
        start = max(self.now, self._next_start)
        if self._left == 0 or (self._duration is not None and start >= self._duration):
            return False
        if self._left is not None:
            self._left -= 1
        if self._rate:
            self._next_start = start + 1 / self._rate
            try:
                async with asyncio.timeout(start - self.now):
                    await self._stopped.wait()
            except TimeoutError:
                pass
        return not self._stopped.is_set()

    async def _visit(self, stream: IOStream | None, first: bool = False) -> IOStream | None:
        """Make one visit, and return its connection if another can follow on it."""
        at = self.now
        answer = _Answer()
        try:
            async with asyncio.timeout(self._timeout):
                if stream is None or stream.closed():
                    stream = await self._connect()
                await self._ask(stream, answer)
            visit = answer.read(at, self.now - at)
        except NotFriendlyhello as error:
            if first:
                raise
            visit = Visit(at, self.now - at, failure=str(error))
        except OSError as error:
            visit = Visit(at, self.now - at, failure=_kind(error))
        self.visits.append(visit)
        if stream is not None and not (self._keep_alive and answer.reusable):
            stream.close()
            return None
        return stream

    async def _connect(self) -> IOStream:
        stream = await self._client.connect(self._host, self._port, max_buffer_size=2 * MOST_BYTES)
        if self._tls is not None:  # the dot at a name's end is for the resolver (RFC 6066, 3)
            name = self._host.removesuffix(".")
            stream = await stream.start_tls(False, self._tls, server_hostname=name)
        stream.set_nodelay(True)
        return stream

    async def _ask(self, stream: IOStream, answer: "_Answer") -> None:
        limits = HTTP1ConnectionParameters(max_header_size=MOST_BYTES, max_body_size=MOST_BYTES)
        connection = HTTP1Connection(stream, is_client=True, params=limits)
        written = connection.write_headers(self._start_line, self._headers)
        connection.finish()
        await written
        await connection.read_response(answer)
        if answer.foreign:
            raise NotFriendlyhello("not friendlyhello's JSON")
        if not answer.whole:
            raise StreamClosedError(stream.error)
        # Notices, while the connection is idle, that the server closes it.
        stream.set_close_callback(lambda: None)


class _Answer(HTTPMessageDelegate):
    """Keeps the answer to one visit."""

    def __init__(self) -> None:
        self.whole = False
        self.reusable = False
        self.foreign = False
        self._status = 0
        self._body = b""

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, ResponseStartLine)
        self._status = start_line.code
        self._closing = headers.get("Connection", "").lower() == "close"
        # Told from the headers, as a body that is too large is not read.
        self.foreign = self._status == 200 and headers.get("Content-Type") != "application/json"

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk

    def finish(self) -> None:
        self.whole = True
        self.reusable = not self._closing

    def read(self, at: float, seconds: float) -> Visit:
        """Return the visit that this answers.

        :raises NotFriendlyhello: when it is not friendlyhello's JSON.
        """
        if self._status in UNAVAILABLE:
            return Visit(at, seconds, failure=f"status {self._status}")
        if self._status != 200:
            raise NotFriendlyhello(f"status {self._status}")
        try:
            page = json.loads(self._body)
            _, replica, number = page["name"], page["hostname"], page["visits"]
        except (ValueError, KeyError, TypeError):
            raise NotFriendlyhello("not friendlyhello's JSON") from None
        if type(replica) is not str or type(number) not in (int, type(None)):
            raise NotFriendlyhello("not friendlyhello's JSON")
        return Visit(at, seconds, replica, number)


def _kind(error: BaseException) -> str:
    """Name a failure in a word or two, so that alike ones are counted together."""
    if isinstance(error, StreamClosedError):
        return _kind(error.real_error) if error.real_error else "closed without an answer"
    for kind, name in (
        (TimeoutError, "timeout"),
        (ConnectionRefusedError, "refused"),
        ((ConnectionResetError, BrokenPipeError), "reset"),
        (socket.gaierror, "name not resolved"),
        (ssl.SSLCertVerificationError, "certificate not trusted"),
        (ssl.SSLError, "TLS failed"),
    ):
        if isinstance(error, kind):
            return name
    assert isinstance(error, OSError)
    return (error.strerror or str(error)).lower()
