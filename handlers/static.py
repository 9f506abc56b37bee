"""``GET /static/…``: what the live page is made of."""

import re
from pathlib import Path
from typing import Any

from tornado.web import StaticFileHandler

from handlers.base import BaseHandler

FOLDER = Path(__file__).parent.parent / "static"

#: A regular expression for the paths of the files that there are.
PATHS = rf"/static/({'|'.join(sorted(re.escape(file.name) for file in FOLDER.iterdir()))})"


_SETTINGS = {"static_path": str(FOLDER), "static_url_prefix": "/static/"}


class StaticHandler(StaticFileHandler, BaseHandler):
    """A file, which may be kept for good under the URL that has its content's hash."""

    @classmethod
    def url(cls, name: str) -> str:
        """Return the URL of a file, its content's hash included."""
        return cls.make_static_url(_SETTINGS, name)

    def get_cache_time(self, path: str, modified: Any, mime_type: str) -> int:
        """Return for how many seconds the file may be kept.

        During an update a page may ask a replica of another version for its own file: what that
        one has is not kept.
        """
        asked = self.get_query_argument("v", None)
        return self.CACHE_MAX_AGE if asked == self.get_version(_SETTINGS, path) else 0
