"""What every answer has in common: its headers, its request id, its errors."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from tornado.escape import json_encode
from tornado.web import RequestHandler

#: The pages load nothing; a handler whose page does says so itself.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: What every answer carries, one that the HTTP server gives by itself too.
COMMON_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}", re.ASCII)


class BaseHandler(RequestHandler):
    """A handler whose answers carry the headers that all of them carry."""

    def set_default_headers(self) -> None:
        """Set the headers of every answer, errors included."""
        self.clear_header("Server")  # it names the server's version
        for name, value in COMMON_HEADERS.items():
            self.set_header(name, value)
        self.set_header("X-Request-ID", self.request_id)
        if self.draining:
            self.set_header("Connection", "close")

    @property
    def request_id(self) -> str:
        """The client's ``X-Request-ID`` when it is well formed, else one made for the request."""
        if not hasattr(self, "_request_id"):
            ids = self.request.headers.get_list("X-Request-ID")
            well_formed = len(ids) == 1 and _REQUEST_ID.fullmatch(ids[0])
            self._request_id = ids[0] if well_formed else uuid.uuid4().hex
        return self._request_id

    @property
    def draining(self) -> bool:
        """Whether the server has been asked to stop."""
        return bool(self.settings.get("draining"))

    def write_json(self, value: Mapping[str, object]) -> None:
        """Write an object as ``application/json``, which is UTF-8 (RFC 8259, 8.1)."""
        self.set_header("Content-Type", "application/json")
        self.write(json_encode(value))

    def compute_etag(self) -> None:
        """Make none: no two pages are alike, and ``If-None-Match: *`` must not give 304."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error as one line of text; 405 says what is allowed (RFC 9110, 15.5.6)."""
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.allowed_methods()))
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")

    @classmethod
    def allowed_methods(cls) -> list[str]:
        """Return the methods that this handler implements."""
        return [
            method
            for method in cls.SUPPORTED_METHODS
            if getattr(cls, method.lower()) is not getattr(RequestHandler, method.lower())
        ]


class NotFoundHandler(BaseHandler):
    """Every path that is no page."""

    def prepare(self) -> None:
        """Answer before any method is looked at."""
        self.send_error(404)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer 404, to a method that HTTP does not know too."""
        self.set_status(404)
        super().write_error(404, **kwargs)
