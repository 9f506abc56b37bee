"""Asks for a page, and reads the answer."""

import contextlib
import json
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urljoin

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError

from audit.client import MOST_BYTES, Target

#: A balancer that has no replica answers these statuses. It may soon have one, so the audit goes
#: on.
UNAVAILABLE = (502, 503, 504)

#: RFC 9110, section 15.4.
REDIRECTS = (301, 302, 303, 307, 308)


class NotFriendlyhello(Exception):
    """Something else than friendlyhello answers at the URL; the message is one line."""


class Redirected(NotFriendlyhello):
    """The answer is a redirect.

    :arg target: where it leads, as an absolute URL if it is one.
    """

    def __init__(self, target: str) -> None:
        super().__init__("redirected")
        self.target = target


class Unavailable(Exception):
    """No page is available now; the message is one line."""


class Page(NamedTuple):
    """The content of friendlyhello's JSON."""

    replica: str
    """The hostname that answered."""
    number: int | None
    """The visit's number; None when the counter was off."""


class Answer(HTTPMessageDelegate):
    """Reads and keeps the answer to one visit.

    :arg target: where the visit goes.
    """

    def __init__(self, target: Target) -> None:
        self.reusable = False
        """Whether the connection can take another request."""
        self._target = target
        self._whole = False
        self._status = 0
        self._headers = HTTPHeaders()
        self._body = b""

    async def ask(self, stream: IOStream, keep_alive: bool) -> Page:
        """Visit the page, and return its content.

        :arg stream: a connection to the target.
        :arg keep_alive: whether to keep the connection open afterwards.
        :raises Unavailable: when a balancer has no replica to ask.
        :raises NotFriendlyhello: when something else answers.
        :raises OSError: when nothing answers.
        """
        await self._fetch(stream, self._target.path, keep_alive)
        page = self._read(stream)
        # With a callback, the stream notices when the server closes the idle connection.
        stream.set_close_callback(lambda: None)
        return page

    async def ask_what_redis_lacks(self, stream: IOStream) -> str | None:
        """Ask ``/readyz``, and return why Redis is down; None when Redis is up.

        :arg stream: a connection to the target.
        :raises Unavailable: when a balancer has no replica to ask.
        :raises NotFriendlyhello: when something else answers.
        :raises OSError: when nothing answers.
        """
        path = self._target.path.partition("?")[0].rstrip("/") + "/readyz"
        await self._fetch(stream, path, keep_alive=False)
        self._check_status(stream, expected=(200, 503))
        try:
            state = json.loads(self._body)
            if state["redis"] == "up":
                return None
            return readable(f"Redis is {state['redis']}: {state.get('reason', 'no reason yet')}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if self._status in UNAVAILABLE:  # a balancer has written the answer
                raise Unavailable(f"status {self._status}") from None
            raise NotFriendlyhello("/readyz is not friendlyhello's") from None

    async def _fetch(self, stream: IOStream, path: str, keep_alive: bool) -> None:
        limits = HTTP1ConnectionParameters(max_header_size=MOST_BYTES, max_body_size=MOST_BYTES)
        connection = HTTP1Connection(stream, is_client=True, params=limits)
        headers = self._target.headers.copy()
        if not keep_alive:
            headers["Connection"] = "close"
        start_line = RequestStartLine("GET", path, "HTTP/1.1")
        written = connection.write_headers(start_line, headers)
        connection.finish()
        await written
        await connection.read_response(self)

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        """Keep the status and the headers; a final answer replaces an interim one, such as 103."""
        assert isinstance(start_line, ResponseStartLine)
        self._status, self._headers = start_line.code, headers
        options = {option.strip() for option in headers.get("Connection", "").lower().split(",")}
        kept = start_line.version != "HTTP/1.0" or "keep-alive" in options  # RFC 9112, 9.3
        self._kept = kept and "close" not in options

    def data_received(self, chunk: bytes) -> None:
        """Keep a part of the body."""
        self._body += chunk

    def finish(self) -> None:
        """Note that the answer is complete."""
        self._whole = True
        self.reusable = self._kept

    def _read(self, stream: IOStream) -> Page:
        media_type = self._headers.get("Content-Type", "").partition(";")[0].strip().lower()
        # The headers decide, because a body that is too large is never complete.
        if self._status == 200 and media_type != "application/json":
            raise NotFriendlyhello("not friendlyhello's JSON")
        self._check_status(stream, expected=(200,))
        return _page(self._body)

    def _check_status(self, stream: IOStream, expected: Sequence[int]) -> None:
        if not self._whole:
            raise StreamClosedError(stream.error)
        if self._status in expected:
            return
        if self._status in UNAVAILABLE:
            raise Unavailable(f"status {self._status}")
        if self._status in REDIRECTS and "Location" in self._headers:
            target = self._headers["Location"]
            with contextlib.suppress(ValueError):  # the header is no URL
                target = urljoin(self._target.url, target)
            raise Redirected(target)
        raise NotFriendlyhello(f"status {self._status}")


def _page(body: bytes) -> Page:
    try:
        page = json.loads(body)
        _, replica, number = page["name"], page["hostname"], page["visits"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotFriendlyhello("not friendlyhello's JSON") from None
    # The report goes to a terminal, so the name must be printable.
    if type(replica) is not str or not replica.isprintable():
        raise NotFriendlyhello("not friendlyhello's JSON")
    if type(number) not in (int, type(None)):
        raise NotFriendlyhello("not friendlyhello's JSON")
    return Page(replica, number)


def readable(text: str) -> str:
    """Return a server's text as one line that is safe for a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
