"""``GET /live`` shows visits as they happen; ``GET /live/events`` is its stream of events."""

import asyncio
import base64
import functools
import hashlib
import json
import random
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from tornado import locale, template

import limits
from handlers.accept import preferred_language
from handlers.base import COMMON_HEADERS, BaseHandler
from handlers.static import FOLDER, StaticHandler
from replicas import HISTORIES
from watch import Broadcast


def _json(value: object) -> str:
    """Return JSON for a ``script`` element; nothing in the JSON can end the element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c")


#: The page's modules import each other by name. The import map turns names into URLs with hashes.
_MODULES = sorted(file.name for file in FOLDER.glob("*.js"))
_IMPORT_MAP = _json(
    {"imports": {f"./static/{name}": f"./{StaticHandler.url(name)}" for name in _MODULES}}
)
_IMPORT_MAP_HASH = base64.b64encode(hashlib.sha256(_IMPORT_MAP.encode()).digest()).decode()

_TEMPLATES = template.Loader(str(FOLDER.parent / "templates"))

locale.set_default_locale("en")
locale.load_translations(str(FOLDER.parent / "templates" / "translations"), encoding="utf-8")

#: The page's languages (BCP 47) and their words. Readers of other languages get the first one.
_LOCALES = {language: locale.get(language) for language in ("en", "zh-CN")}


#: Seconds that a client should wait before it asks for a stream again.
RETRY_AFTER = 10


class _ViewHandler(BaseHandler):
    """A handler of a view of the last minutes, hours or day; the query ``last`` chooses."""

    EAGER_START = True

    def view(self) -> str | None:
        """Return which view the query asks for; None after a bad one got 400."""
        last = self.get_query_argument("last", "5m", strip=False)
        if last in HISTORIES:
            return last
        self.send_error(400, why=f"last is one of {', '.join(HISTORIES)}")
        return None


class LiveHandler(_ViewHandler):
    """The page. It reads its figures from ``/live/events``."""

    HEADERS: ClassVar[Mapping[str, str]] = {
        **COMMON_HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'self' 'sha256-{_IMPORT_MAP_HASH}'; "
            "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ),
        "Vary": "Accept-Language",
    }

    async def get(self) -> None:
        """Answer with the page, in the reader's language."""
        said = self.request.headers.get("Accept-Language", "")
        if (last := self.view()) is not None:
            self.finish(_page(preferred_language(said, tuple(_LOCALES)), last))

    head = get


@functools.cache
def _page(language: str, last: str) -> str:
    """Return the page; write it once for each language and view, and then cache it.

    Tornado's `render` would write it for each request. The template's namespace would refer to
    itself, so the request would stay in memory until the garbage collector runs.

    :arg language: one of the `_LOCALES`.
    :arg last: one of the `HISTORIES`.
    """
    return (
        _TEMPLATES.load("live.html")
        .generate(
            _=_LOCALES[language].translate,
            language=language,
            last=last,
            history=HISTORIES[last],
            data=_json,
            static=StaticHandler.url,
            import_map=_IMPORT_MAP,
        )
        .decode()
    )


class EventsHandler(_ViewHandler):
    """A stream of events. It ends when the client goes, its time is over, or the server stops.

    Streams are many, and stay. So a stream takes little memory: it waits for one future, without a
    Task, and has no timer, since it gets a part each second anyway.
    """

    HEADERS: ClassVar[Mapping[str, str]] = {
        **COMMON_HEADERS,
        "Cache-Control": "no-store, no-transform",  # a proxy that compresses would delay events
        "Content-Type": "text/event-stream",
        "X-Accel-Buffering": "no",  # else nginx would hold events back until it has many
    }

    def initialize(self, live: Broadcast, most: int) -> None:
        """Take the broadcast.

        :arg live: sends the events.
        :arg most: how many streams may be open.
        """
        self._live = live
        self._most = most
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._read: asyncio.Future[None] | None = None  # done when more may be written

    async def get(self) -> None:
        """Send events for `limits.STREAM_SECONDS`; 503 when too many streams are open."""
        if (last := self.view()) is None:
            return
        if len(self._live.watchers) >= self._most:
            self.send_error(503, why="too many streams are open")
            return
        self._until = time.monotonic() + random.uniform(*limits.STREAM_SECONDS)
        self._live.add(self, last)
        await self._over
        self._live.remove(self)

    async def head(self) -> None:
        """Answer GET's headers."""
        if self.view() is not None:
            await self.flush()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error; 503 says when to ask again (RFC 9110, 10.2.3)."""
        if status_code == 503:
            self.set_header("Retry-After", str(RETRY_AFTER))
        super().write_error(status_code, **kwargs)

    def send(self, chunk: bytes) -> bool:
        """Write a part of the stream, unless the client has not read the earlier parts.

        The HTTP server buffers some kilobytes for a slow client. It closes the connection when
        the client reads nothing for a while.

        :return: whether the part was written.
        """
        has_read = self._read is None or self._read.done()
        if has_read:
            self.write(chunk)
            self._read = self.flush()
        if time.monotonic() >= self._until:
            self._end()
        return has_read

    def end(self) -> None:
        """End the stream, without waiting for a slow client."""
        if self._read is not None and not self._read.done():
            connection: Any = self.request.connection
            connection.stream.close()
        self._end()

    def on_connection_close(self) -> None:
        """End the stream: the client has gone."""
        self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
