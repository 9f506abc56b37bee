"""What every answer has in common: its headers, its request id, its errors."""

import asyncio
import random
import re
from collections.abc import Mapping
from http.client import responses
from typing import Any, ClassVar

from tornado import web
from tornado.escape import json_encode
from tornado.httputil import HTTPHeaders

from handlers.accept import prefers_json
from http1 import RequestHandler

#: Pages load nothing. A handler whose page loads something has a policy of its own.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: Headers of every answer, also of answers that the HTTP server gives by itself.
COMMON_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}", re.ASCII)


class BaseHandler(RequestHandler):
    """A handler whose answers carry the common headers."""

    HEADERS: ClassVar[Mapping[str, str]] = COMMON_HEADERS

    MAX_BODY_SIZE: ClassVar[int | None] = 0  # no page reads a body

    LOG_LEVEL: ClassVar[int | None] = None
    """The log level of the handler's requests; None when their status decides."""

    request_id = ""
    """The client's ``X-Request-ID`` if it is well formed, else an id made for the request."""

    def set_default_headers(self) -> None:
        """Set the headers that differ between requests or deployments. Tornado calls this."""
        self.request_id = self.request_id or _request_id(self.request.headers)
        self.set_safe_header("X-Request-Id", self.request_id)
        if version := self.application.settings.get("version_label"):
            self.set_header("X-App-Version", version)

    @property
    def is_draining(self) -> bool:
        """Whether the server has been asked to stop."""
        draining: asyncio.Event = self.settings["draining"]
        return draining.is_set()

    def finish_json(self, value: Mapping[str, object]) -> None:
        """Finish with an object as ``application/json``, which is UTF-8 (RFC 8259, 8.1)."""
        self.set_header("Content-Type", "application/json")
        self.finish(json_encode(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error with `error_body`; 405 lists the allowed methods (RFC 9110, 15.5.6).

        :arg why: more that the client should know.
        """
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.allowed_methods()))
        accept = self.request.headers.get("Accept", "")
        content_type, body = error_body(status_code, kwargs.get("why", ""), accept)
        self.set_header("Content-Type", content_type)
        self.finish(body)

    @classmethod
    def allowed_methods(cls) -> list[str]:
        """Return the methods that this handler implements."""
        return [
            method
            for method in cls.SUPPORTED_METHODS
            if getattr(cls, method.lower()) is not getattr(web.RequestHandler, method.lower())
        ]


def error_body(status: int, why: str, accept: str) -> tuple[str, str]:
    """Return an error's media type and its text.

    :arg why: more that the client should know; "" for nothing.
    :arg accept: the client's Accept header; "" when there was none. A client that prefers JSON
        gets the form of RFC 9457, any other client gets one line of text.
    """
    reason = responses.get(status, "Unknown")
    if status >= 400 and prefers_json(accept, "application/problem+json"):
        detail = {"detail": why} if why else {}
        return "application/problem+json", json_encode({"status": status, "title": reason} | detail)
    return "text/plain; charset=utf-8", f"{status} {reason}{': ' * bool(why)}{why}\n"


def _request_id(headers: HTTPHeaders) -> str:
    given = headers.get("X-Request-Id")  # a comma joins several ids, and is not allowed
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return random.getrandbits(128).to_bytes(16).hex()  # uuid4() would make a secret, at a cost


class NotFoundHandler(BaseHandler):
    """Answers every path that is no page."""

    def prepare(self) -> None:
        """Answer 404, whatever the method is."""
        self.send_error(404)

    def log_exception(self, *exception: Any) -> None:
        """Log no HTTPError: its status may differ from the 404 that the client gets."""
        if not isinstance(exception[1], web.HTTPError):
            super().log_exception(*exception)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer 404, even to a method that HTTP does not know."""
        self.set_status(404)
        super().write_error(404, **kwargs)
