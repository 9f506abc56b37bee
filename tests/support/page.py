"""The application in the test's own loop, visited over HTTP."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.testing import bind_unused_port

from config import Settings
from counter import Visits
from counter.connector import Password
from http1 import HTTPServer
from server import make_app
from tests.support.waiting import BUSY as BUSY
from tests.support.waiting import PATIENCE, eventually, within

OFF = "<i>cannot connect to Redis, counter disabled</i>"


def number_on(page: bytes) -> int | None:
    """Return the number that a page shows, None for the fallback; fail for anything else."""
    match = re.fullmatch(
        rf"<h3>Hello .*!</h3><b>Hostname:</b> .*<br/><b>Visits:</b> (?:(-?\d+)|{OFF})",
        page.decode(),
    )
    assert match, page
    return None if match[1] is None else int(match[1])


def counters_lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return level and text of what the counter has logged; others may have a word, too."""
    found = [one for one in caplog.records if one.name == "friendlyhello.visits"]
    return [(one.levelname, one.getMessage()) for one in found]


class ServedVisitor:
    """Visits a page of this loop, however many times at once, and sees how it counts."""

    def __init__(self, url: str, visits: Visits) -> None:
        self.url, self.visits = url, visits
        self._client = AsyncHTTPClient(
            force_instance=True,
            max_clients=1000,
            defaults={"connect_timeout": PATIENCE, "request_timeout": PATIENCE},
        )

    def close(self) -> None:
        self._client.close()

    async def fetch(self, path: str = "") -> HTTPResponse:
        """Return the answer to a path below the page's; the status must be 200."""
        answer = await self._client.fetch(self.url + path, raise_error=False)
        assert answer.code == 200, answer
        return answer

    async def visit(self) -> int | None:
        return number_on((await self.fetch()).body)

    async def counted_again(self, seconds: float = 2.0) -> int:
        """Visit until a page shows a number, and return it.

        :arg seconds: that this may take, to which a busy machine may add.
        """

        async def counted() -> int:
            while (number := await self.visit()) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return number

        return await within(seconds, counted())

    async def assert_at_once(self, pages: int = 20) -> None:
        """Assert that pages show the fallback without waiting."""
        for _ in range(pages):
            assert await within(0, self.visit()) is None

    @contextlib.asynccontextmanager
    async def losing_connection(self) -> AsyncIterator[None]:
        """Go on after the context once the counter knows that its connection is none any more."""
        lost = self.visits._link._connection
        yield
        await eventually(lambda: self.visits._link._connection is not lost or not lost.is_sound)


class PunctualVisits(Visits):
    """Visits that fail, and their pages with them, when one waits longer than it may."""

    async def count(self) -> int | None:
        return await within(0 if self._link.is_off else self._link._timeout, super().count())


@contextlib.asynccontextmanager
async def serving(
    url: str, *, timeout: float = PATIENCE, password: Password | None = None
) -> AsyncIterator[ServedVisitor]:
    """Serve the page, counting in the Redis at ``url``.

    A visit that waits longer for Redis than ``timeout``, and what a busy machine adds to it, is
    an error of its page; so is one that waits although the counter is off.
    """
    visits = PunctualVisits(url, timeout=timeout, password=password)
    server = HTTPServer(make_app(Settings(access_log=False), visits))
    listening, port = bind_unused_port()
    server.add_socket(listening)
    visitor = ServedVisitor(f"http://127.0.0.1:{port}/", visits)
    try:
        yield visitor
    finally:
        visitor.close()
        server.stop()
        await server.close_all_connections()
        await visits.close()
