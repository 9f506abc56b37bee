"""``GET /static/…``: no client joins two versions of a file, or keeps the one that is gone."""

from tornado.httpclient import HTTPResponse
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application

from handlers.static import FOLDER, StaticHandler
from server import make_app
from tests.support.here import Serve
from tests.support.program import NOWHERE
from tests.support.raw_http import ask, open_to

PATH = "/static/live.js"
HASHED = f"/{StaticHandler.url('live.js')}"
CONTENT = (FOLDER / "live.js").read_bytes()
LAST = len(CONTENT) - 1
OTHER = '"' + "0" * 128 + '"'
TOMORROW = "Fri, 31 Dec 2100 00:00:00 GMT"

#: What is asked for, and the part that comes: its first byte, and the one behind the last.
RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=1-3": (1, 4),
    "bytes=5-": (5, LAST + 1),
    "bytes=-5": (LAST - 4, LAST + 1),
    f"bytes=2-{LAST + 99}": (2, LAST + 1),
}

#: These are no range, or several, or all of it: the whole file is the answer.
WHOLE = [
    *("bytes=", "bytes=-", "bytes", "bytes=a-b", "bytes=+1-3", "bytes=1_0-2_0", "bytes=1 - 3"),
    *("bytes=²-³", "bytes=0-" + "9" * 5000, "bytes=--1", "bytes=0x1-0x3", "lines=1-3"),
    *("bytes=0-1,4-5", "bytes=0-0,-1", "bytes=0-", f"bytes=0-{LAST}"),
]

NONE = [f"bytes={LAST + 1}-", "bytes=-0", "bytes=3-1"]


class StaticTest(AsyncHTTPTestCase):
    """The files of the live page."""

    def get_app(self) -> Application:
        return make_app()

    def ask(self, method: str = "GET", path: str = PATH, **headers: str) -> HTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.fetch(path, method=method, headers=named)

    def setUp(self) -> None:
        super().setUp()
        self.etag = self.ask().headers["Etag"]
        self.not_it = (OTHER, f"W/{self.etag}", self.etag.strip('"'))

    def test_etag_is_strong_and_the_same_with_and_without_the_contents_hash(self) -> None:
        assert self.etag.startswith('"')
        for path in (PATH, HASHED, f"{PATH}?v=of-another-version"):
            for method in ("GET", "HEAD"):
                assert self.ask(method, path).headers["Etag"] == self.etag
        assert self.ask(path="/static/live.css").headers["Etag"] != self.etag

    def test_what_the_client_has_is_not_sent_again(self) -> None:
        whole = self.ask(path=HASHED)
        for tags in (self.etag, f"W/{self.etag}", f"{OTHER}, {self.etag}", "*"):
            answer = self.ask(path=HASHED, If_None_Match=tags)
            assert (answer.code, answer.body) == (304, b"")
            # RFC 9110, 15.4.5.
            for name in ("Etag", "Cache-Control"):
                assert answer.headers[name] == whole.headers[name]
            assert "Expires" in answer.headers
            assert "Content-Type" not in answer.headers
        for condition in (
            *({"If_None_Match": tags} for tags in (OTHER, f"W/{OTHER}", self.etag.strip('"'))),
            {"If_Modified_Since": TOMORROW},  # no date makes a file the one that the client has
            {"If_Modified_Since": TOMORROW, "If_None_Match": OTHER},
        ):
            answer = self.ask(path=HASHED, **condition)
            assert (answer.code, answer.body) == (200, CONTENT)
            assert "Last-Modified" not in answer.headers

    def test_one_part_is_sent_of_the_file_that_the_client_has_begun(self) -> None:
        is_same = [{"If_Range": self.etag}, {"If_Match": self.etag}, {"If_Match": "*"}]
        for asked, (first, end) in RANGES.items():
            for condition in ({}, *is_same):
                answer = self.ask(Range=asked, **condition)
                assert (answer.code, answer.body) == (206, CONTENT[first:end]), asked
                assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"
                assert answer.headers["Etag"] == self.etag

    def test_a_client_that_has_begun_another_file_gets_the_whole_or_is_refused(self) -> None:
        for begun in (*self.not_it, f"{self.etag}, {OTHER}", TOMORROW, "*", ""):
            for asked in "bytes=1-3", NONE[0]:  # whether there is such a part of it or not
                answer = self.ask(Range=asked, If_Range=begun)
                assert (answer.code, answer.body) == (200, CONTENT), begun
                assert "Content-Range" not in answer.headers
        for wanted in (*self.not_it, "x"):
            answer = self.ask(Range="bytes=1-3", If_Match=wanted)
            assert (answer.code, answer.body) == (412, b"412 Precondition Failed\n"), wanted
        assert self.ask(If_Match=f"{OTHER}, {self.etag}").code == 200

    def test_what_is_not_one_range_gets_the_whole_file_and_one_that_there_is_not_416(self) -> None:
        for asked in (*WHOLE, *NONE):
            answer = self.ask(Range=asked)
            told = (answer.code, answer.body, answer.headers.get("Content-Range"))
            none = (416, b"", f"bytes */{len(CONTENT)}")
            assert told == (none if asked in NONE else (200, CONTENT, None)), asked
        for asked in ("bytes=1-3", NONE[0]):
            answer = self.ask("HEAD", Range=asked)
            assert (answer.code, answer.headers["Content-Length"]) == (200, str(len(CONTENT)))

    def test_other_pages_have_no_etag_and_no_parts(self) -> None:
        for path in ("/", "/live", "/metrics", "/openapi.yaml", "/healthz", "/static/none"):
            answer = self.ask(path=path, Range="bytes=1-3", If_None_Match="*")
            assert answer.code in (200, 404)
            assert "Etag" not in answer.headers


def test_what_one_request_is_refused_the_next_of_the_same_head_gets(served: Serve) -> None:
    """The server keeps the heads that came before."""
    head = f"GET {PATH} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n"
    with open_to(served(NOWHERE)) as client:
        for _ in range(3):
            whole = ask(client, f"{head}If-Range: {OTHER}\r\n\r\n".encode())
            part = ask(client, f"{head}\r\n".encode())
            assert (whole.status, whole.body) == (200, CONTENT)
            assert (part.status, part.body) == (206, CONTENT[:2])
