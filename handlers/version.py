"""``GET /version``: which version runs."""

import sys

import tornado

from config import VERSION, commit
from counter import Visits
from handlers.base import BaseHandler
from http1 import HTTPServer


def _is_compiled() -> bool:
    """Tell whether the compilable parts are compiled, that is, not read from Python files."""
    files = [sys.modules[part.__module__].__file__ or "" for part in (Visits, HTTPServer)]
    return not any(file.endswith((".py", ".pyc")) for file in files)


class VersionHandler(BaseHandler):
    """Answers with the program's version and with the versions that it runs on."""

    def get(self) -> None:
        """Answer with the versions, and with the commit if it is known."""
        known = {"commit": found} if (found := commit()) else {}
        self.finish_json(
            {
                "version": VERSION,
                **known,
                "python": sys.version.split()[0],
                "tornado": tornado.version,
                "compiled": _is_compiled(),
            }
        )

    head = get
