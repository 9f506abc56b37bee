"""``GET /static/…``: what the live page is made of."""

import re
from pathlib import Path
from typing import Any

from tornado.web import HTTPError, StaticFileHandler

from handlers.base import BaseHandler

FOLDER = Path(__file__).parent.parent / "static"

#: A regular expression for the paths of the files that there are.
PATHS = rf"/static/({'|'.join(sorted(re.escape(file.name) for file in FOLDER.iterdir()))})"


# URLs are relative, as nobody here knows which path a proxy puts before them.
_SETTINGS = {"static_path": str(FOLDER), "static_url_prefix": "static/"}

#: One range of bytes (RFC 9110, 14.1.2). Of several, the whole file is an answer too.
_ONE_RANGE = re.compile(r"bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")

#: A list of entity tags (RFC 9110, 8.8.3), of which only the strong ones name a content.
_TAG = re.compile(r'(?:W/)?"[^"]*"')


class StaticHandler(StaticFileHandler, BaseHandler):
    """A file, which may be kept for good under the URL that has its content's hash.

    That hash is its ETag. There is no date: during an update, replicas of several versions answer
    under one path, and the newer content may have the older date, or both the same.
    """

    async def get(self, path: str, include_body: bool = True) -> None:
        """Answer the file, or the one part of it that is asked for.

        :raises HTTPError: 412, when ``If-Match`` names another content (RFC 9110, 13.1.1).
        """
        headers = self.request.headers
        tag = f'"{self.get_version(_SETTINGS, path)}"'
        wanted = headers.get("If-Match", "*").strip()
        if wanted != "*" and tag not in _TAG.findall(wanted):
            raise HTTPError(412)
        if "Range" in headers and not self._is_part_wanted(tag):
            del headers["Range"]
        await super().get(path, include_body)

    def _is_part_wanted(self, tag: str) -> bool:
        """Tell whether ``Range`` is heeded: in GET, and for the content that the client has.

        A part of another content would be joined to what the client has of the one before
        (RFC 9110, 13.1.5 and 14.2).
        """
        headers = self.request.headers
        is_same = headers.get("If-Range", tag).strip() == tag
        is_one = _ONE_RANGE.fullmatch(headers["Range"].strip())
        return self.request.method == "GET" and is_same and is_one is not None

    def should_return_304(self) -> bool:
        """Tell whether the client has this content: ``If-None-Match`` alone says so."""
        return self.check_etag_header()

    def get_modified_time(self) -> None:
        """Return none; see above."""

    @classmethod
    def get_content_version(cls, abspath: str) -> str:
        """Return the content's hash, of which 80 bits are enough."""
        return super().get_content_version(abspath)[:20]

    @classmethod
    def url(cls, name: str) -> str:
        """Return the URL of a file, as the live page is to name it, its content's hash included."""
        return cls.make_static_url(_SETTINGS, name)

    def get_cache_time(self, path: str, modified: Any, mime_type: str) -> int:
        """Return for how many seconds the file may be kept.

        During an update a page may ask a replica of another version for its own file: what that
        one has is not kept.
        """
        asked = self.get_query_argument("v", None)
        return self.CACHE_MAX_AGE if asked == self.get_version(_SETTINGS, path) else 0
