"""``GET /live`` and ``GET /live/events``: the page that shows visits as they are counted."""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from counter import HISTORIES
from handlers.base import COMMON_HEADERS, BaseHandler
from handlers.static import StaticHandler
from watch import Broadcast


class _ViewHandler(BaseHandler):
    """A handler of a view of the last minutes, hours or day, which the query names."""

    def prepare(self) -> None:
        """Read the query; what it gets wrong is 400."""
        self._last = self.get_query_argument("last", "5m", strip=False)
        if self._last not in HISTORIES:
            self.send_error(400, why=f"last is one of {', '.join(HISTORIES)}")


class LiveHandler(_ViewHandler):
    """The page. What it shows comes from ``/live/events``."""

    HEADERS: ClassVar[Mapping[str, str]] = {
        **COMMON_HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    }

    def get(self) -> None:
        """Answer the page."""
        self.render("live.html", static=StaticHandler.url, last=self._last, views=[*HISTORIES])

    head = get


class EventsHandler(_ViewHandler):
    """A stream of events, which ends when the client goes or the server stops."""

    HEADERS: ClassVar[Mapping[str, str]] = {
        **COMMON_HEADERS,
        "Cache-Control": "no-store, no-transform",  # what compresses it would wait for more
        "Content-Type": "text/event-stream",
        "X-Accel-Buffering": "no",  # nginx would keep events until there are many
    }

    def initialize(self, live: Broadcast) -> None:
        """Take what tells those who watch."""
        self._live = live
        self._ended = asyncio.Event()
        self._read: asyncio.Future[None] | None = None  # done when what was sent has been read

    async def get(self) -> None:
        """Watch."""
        self._live.add(self, self._last)
        await self._ended.wait()

    async def head(self) -> None:
        """Answer GET's headers."""
        await self.flush()

    def send(self, chunk: bytes) -> bool:
        """Write some of the stream, and tell so, but not to a client that lags behind.

        The HTTP server holds some kilobytes for it, and closes the connection when none of them
        are read for a while.
        """
        has_read = self._read is None or self._read.done()
        if has_read:
            self.write(chunk)
            self._read = self.flush()
        return has_read

    def end(self) -> None:
        """End the stream; a client that lags behind is not waited for."""
        if self._read is not None and not self._read.done():
            connection: Any = self.request.connection
            connection.stream.close()
        self._ended.set()

    def on_connection_close(self) -> None:
        """Stop watching, as the client has gone."""
        self._live.remove(self)
        self._ended.set()
