"""``GET /live`` and ``GET /live/events``: the page that shows visits as they are counted."""

import asyncio
import base64
import contextlib
import functools
import hashlib
import json
import math
import random
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
    """Return JSON that may stand in a ``script`` element: nothing in it ends that."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c")


#: The page's modules import each other by their names. This leads to the URLs with their hashes.
_MODULES = sorted(file.name for file in FOLDER.glob("*.js"))
_IMPORT_MAP = _json(
    {"imports": {f"./static/{name}": f"./{StaticHandler.url(name)}" for name in _MODULES}}
)
_IMPORT_MAP_HASH = base64.b64encode(hashlib.sha256(_IMPORT_MAP.encode()).digest()).decode()

_TEMPLATES = template.Loader(str(FOLDER.parent / "templates"))

locale.set_default_locale("en")
locale.load_translations(str(FOLDER.parent / "templates" / "translations"), encoding="utf-8")

#: The page's languages (BCP 47), the first for readers of any other one, and their words.
_LOCALES = {language: locale.get(language.replace("-", "_")) for language in ("en", "zh-CN")}


#: Seconds after which a client may ask again for a stream.
RETRY_AFTER = 10


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
            f"default-src 'none'; script-src 'self' 'sha256-{_IMPORT_MAP_HASH}'; "
            "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ),
        "Vary": "Accept-Language",
    }

    def get(self) -> None:
        """Answer the page, in the reader's language."""
        said = self.request.headers.get("Accept-Language", "")
        self.finish(_page(preferred_language(said, tuple(_LOCALES)), self._last))

    head = get


@functools.cache
def _page(language: str, last: str) -> str:
    """Return the page, written once for each of its languages and views.

    Tornado's `render` would write it for each request, and the circle in its template's names
    would keep the request until the garbage collector comes.

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
    """A stream of events, which ends when the client goes or the server stops."""

    HEADERS: ClassVar[Mapping[str, str]] = {
        **COMMON_HEADERS,
        "Cache-Control": "no-store, no-transform",  # what compresses it would wait for more
        "Content-Type": "text/event-stream",
        "X-Accel-Buffering": "no",  # nginx would keep events until there are many
    }

    def initialize(self, live: Broadcast, most: int | None = None) -> None:
        """Take what tells those who watch, and how many may."""
        self._live = live
        self._most = math.inf if most is None else most
        self._ended = asyncio.Event()
        self._read: asyncio.Future[None] | None = None  # done when what was sent has been read

    async def get(self) -> None:
        """Watch, for as long as a stream lives; 503 when as many watch as may."""
        if len(self._live.watchers) >= self._most:
            self.send_error(503, why="as many streams are open as may be")
            return
        self._live.add(self, self._last)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(*limits.STREAM_SECONDS)):
                await self._ended.wait()
        self._live.remove(self)

    async def head(self) -> None:
        """Answer GET's headers."""
        await self.flush()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error; 503 says when to ask again (RFC 9110, 10.2.3)."""
        if status_code == 503:
            self.set_header("Retry-After", str(RETRY_AFTER))
        super().write_error(status_code, **kwargs)

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
