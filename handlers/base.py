"""What every answer has in common: its headers, its request id, its errors."""

import functools
import random
import re
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from tornado.escape import json_encode
from tornado.httputil import HTTPHeaders, ResponseStartLine, format_timestamp
from tornado.web import RequestHandler

from headers import AnswerHeaders, CommonHeaders

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

    #: Headers of every answer of the handler, errors included, as HTTP writes their names.
    HEADERS: ClassVar[Mapping[str, str]] = COMMON_HEADERS

    BEGINS_AT_ONCE: ClassVar[bool] = False
    """Whether GET and HEAD without a query take the short way; see `application`."""

    LOG_LEVEL: ClassVar[int | None] = None
    """That of the handler's requests in the log; None: their status decides."""

    request_id = ""
    """The client's ``X-Request-ID`` when it is well formed, else one made for the request."""

    def clear(self) -> None:
        """Begin the answer: Tornado's headers but for Server, which names its version, and ours.

        Tornado would check one after the other, and format the date each time: 27 % of a page.
        """
        self.request_id = self.request_id or _request_id(self.request.headers)
        version = self.settings.get("version_label")
        common = _common_headers(type(self), int(time.time()), version)  # type: ignore[arg-type]
        self._headers = AnswerHeaders(common, {"X-Request-Id": [self.request_id]})
        self._write_buffer = []
        self.set_status(200)

    @property
    def draining(self) -> bool:
        """Whether the server has been asked to stop."""
        return bool(self.settings.get("draining"))

    def finish_whole(self, body: str) -> None:
        """Finish with a body, as the status allows one and nothing was written or transforms it.

        Tornado's `finish` does the same, and asks for each of that: 4 % of a page.

        :arg body: what is sent as UTF-8; not to HEAD.
        """
        encoded = body.encode()
        self._headers["Content-Length"] = str(len(encoded))
        connection = self.request.connection
        assert connection is not None
        start_line = ResponseStartLine("", self._status_code, self._reason)
        chunk = encoded if self.request.method != "HEAD" else b""
        connection.write_headers(start_line, self._headers, chunk)
        connection.finish()
        self._headers_written = self._finished = True
        self._log()
        self.on_finish()
        self._break_cycles()

    def finish_json(self, value: Mapping[str, object]) -> None:
        """Finish with an object as ``application/json``, which is UTF-8 (RFC 8259, 8.1)."""
        self.set_header("Content-Type", "application/json")
        self.finish_whole(json_encode(value))

    def set_etag_header(self) -> None:
        """Make none: no two pages are alike."""

    def check_etag_header(self) -> bool:
        """Answer ``If-None-Match: *`` with the page, not with 304."""
        return False

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error as one line of text; 405 says what is allowed (RFC 9110, 15.5.6).

        :arg why: what the client has to know besides.
        """
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.allowed_methods()))
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        why = f": {kwargs['why']}" if "why" in kwargs else ""
        self.finish(f"{status_code} {self._reason}{why}\n")

    @classmethod
    def allowed_methods(cls) -> list[str]:
        """Return the methods that this handler implements."""
        return [
            method
            for method in cls.SUPPORTED_METHODS
            if getattr(cls, method.lower()) is not getattr(RequestHandler, method.lower())
        ]


def _request_id(headers: HTTPHeaders) -> str:
    given = headers.get("X-Request-Id", "")  # several have a comma between them
    if _REQUEST_ID.fullmatch(given):
        return given
    return random.getrandbits(128).to_bytes(16).hex()  # no secret; uuid4() takes 6 % of a page


@functools.lru_cache(maxsize=16)
def _common_headers(
    handler_class: type[BaseHandler], second: int, version: str | None
) -> CommonHeaders:
    headers = {**handler_class.HEADERS, "Date": format_timestamp(second)}
    if version:
        headers["X-App-Version"] = version
    return CommonHeaders({name: [value] for name, value in headers.items()})


class NotFoundHandler(BaseHandler):
    """Every path that is no page."""

    def prepare(self) -> None:
        """Answer before any method is looked at."""
        self.send_error(404)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer 404, to a method that HTTP does not know too."""
        self.set_status(404)
        super().write_error(404, **kwargs)
