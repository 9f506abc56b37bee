"""The application in the test's own loop, visited over HTTP."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator

from tornado.httpclient import AsyncHTTPClient
from tornado.testing import bind_unused_port

from config import Settings
from counter.visits import Visits
from http1 import HTTPServer
from server import make_app

#: What a busy machine may add to a deadline, as the contract has it.
BUSY = 0.2

OFF = "<i>cannot connect to Redis, counter disabled</i>"


def number_on(page: bytes) -> int | None:
    """Return the number that a page shows, None for the fallback; fail for anything else."""
    match = re.fullmatch(
        rf"<h3>Hello .*!</h3><b>Hostname:</b> .*<br/><b>Visits:</b> (?:(-?\d+)|{OFF})",
        page.decode(),
    )
    assert match, page
    return None if match[1] is None else int(match[1])


class Visitor:
    """Visits a page, however many times at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = AsyncHTTPClient(force_instance=True, max_clients=1000)

    def close(self) -> None:
        self._client.close()

    async def visit(self) -> int | None:
        """Return the number; the status must be 200."""
        answer = await self._client.fetch(self.url, raise_error=False)
        assert answer.code == 200, answer
        return number_on(answer.body)

    async def timed(self) -> tuple[int | None, float]:
        """Return the number and how long it took."""
        start = time.monotonic()
        return await self.visit(), time.monotonic() - start

    async def counted_again(self, seconds: float = 2.0) -> int:
        """Visit until a visit counts, and return its number; fail when none does in time."""
        deadline = time.monotonic() + seconds
        while (number := await self.visit()) is None:
            assert time.monotonic() < deadline, f"no visit counts after {seconds} s"
            await asyncio.sleep(0.02)
        return number

    async def assert_at_once(self, pages: int = 20) -> None:
        """Assert that pages show the fallback without waiting."""
        seen = [await self.timed() for _ in range(pages)]
        assert {number for number, _ in seen} == {None}
        assert sorted(seconds for _, seconds in seen)[pages // 2] < 0.05


@contextlib.asynccontextmanager
async def serving(url: str, *, timeout: float = 2.0, start: bool = False) -> AsyncIterator[Visitor]:
    """Serve the page, counting in the Redis at ``url``."""
    visits = Visits(url, timeout=timeout)
    server = HTTPServer(make_app(Settings(access_log=False), visits))
    listening, port = bind_unused_port()
    if start:
        await visits.start(0.25)
    server.add_socket(listening)
    visitor = Visitor(f"http://127.0.0.1:{port}/")
    try:
        yield visitor
    finally:
        visitor.close()
        server.stop()
        await server.close_all_connections()
        await visits.close()
