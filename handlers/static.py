"""``GET /static/…``: the scripts, styles and images of the live page."""

import re
from pathlib import Path
from typing import Any

from tornado.web import HTTPError, StaticFileHandler

from handlers.base import BaseHandler

FOLDER = Path(__file__).parent.parent / "static"

#: A regular expression for the paths of the existing files.
PATHS = rf"/static/({'|'.join(sorted(re.escape(file.name) for file in FOLDER.iterdir()))})"


# URLs are relative: the server does not know which path a proxy puts before them.
_SETTINGS = {"static_path": str(FOLDER), "static_url_prefix": "static/"}

#: One range of bytes (RFC 9110, 14.1.2). A request for several ranges gets the whole file.
_ONE_RANGE = re.compile(r"bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")

#: An entity tag in a list (RFC 9110, 8.8.3). Only strong tags identify a content.
_TAG = re.compile(r'(?:W/)?"[^"]*"')


class StaticHandler(StaticFileHandler, BaseHandler):
    """A file. Under a URL with the hash of its content, clients may keep it for ever.

    The hash is also the ETag. There is no ``Last-Modified``: during an update, replicas of several
    versions answer for the same path, and the newer content may have the same or an older date.
    """

    async def get(self, path: str, include_body: bool = True) -> None:
        """Answer with the file, or with the part that ``Range`` asks for.

        :raises HTTPError: 412 when ``If-Match`` names another content (RFC 9110, 13.1.1).
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
        """Tell whether ``Range`` counts: only in GET, and only if ``If-Range`` names this content.

        A client joins the part to the parts that it has already, so all parts must be of the same
        content (RFC 9110, 13.1.5 and 14.2).
        """
        headers = self.request.headers
        is_same = headers.get("If-Range", tag).strip() == tag
        is_one = _ONE_RANGE.fullmatch(headers["Range"].strip())
        return self.request.method == "GET" and is_same and is_one is not None

    def should_return_304(self) -> bool:
        """Tell whether the client has this content. Only ``If-None-Match`` decides."""
        return self.check_etag_header()

    def get_modified_time(self) -> None:
        """Return no date, for the reason that the class gives."""

    @classmethod
    def get_content_version(cls, abspath: str) -> str:
        """Return the first 80 bits of the content's hash; they are enough."""
        return super().get_content_version(abspath)[:20]

    @classmethod
    def url(cls, name: str) -> str:
        """Return a file's URL for the live page, with the content's hash."""
        return cls.make_static_url(_SETTINGS, name)

    def get_cache_time(self, path: str, modified: Any, mime_type: str) -> int:
        """Return for how many seconds a client may keep the file.

        During an update, a page may ask a replica of another version for a file. That replica's
        file has another hash than the URL, so the client must not keep it.
        """
        asked = self.get_query_argument("v", None)
        return self.CACHE_MAX_AGE if asked == self.get_version(_SETTINGS, path) else 0
