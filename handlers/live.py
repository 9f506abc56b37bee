"""``GET /live`` and ``GET /live/events``: the page that shows visits as they are counted."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from handlers.base import COMMON_HEADERS, BaseHandler
from handlers.static import StaticHandler
from watch import Broadcast

#: An event's id, which is the milliseconds since 1970.
_ID = re.compile("[0-9]{1,15}")


class LiveHandler(BaseHandler):
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
        """Answer the page, which is the same for everybody."""
        self.render("live.html", static=StaticHandler.url)

    head = get


class EventsHandler(BaseHandler):
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
        """Watch; a client that comes back says what it has, by an event's id."""
        last = self.request.headers.get("Last-Event-ID", "")
        self._live.add(self, int(last) / 1000 if _ID.fullmatch(last) else 0)
        await self._ended.wait()

    async def head(self) -> None:
        """Answer GET's headers."""
        await self.flush()

    def send(self, chunk: bytes) -> None:
        """Write some of the stream, but not to a client that lags behind.

        The HTTP server holds some kilobytes for it, and closes the connection when none of them
        are read for a while.
        """
        if self._read is None or self._read.done():
            self.write(chunk)
            self._read = self.flush()

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
