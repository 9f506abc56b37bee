"""``GET /live``: its languages, its words, its size; its files, by ``GET /static/…``.

No client joins two versions of a file, or keeps the one that is gone.
"""

import base64
import csv
import hashlib
import json
import re
from urllib.parse import urljoin

from tornado.httpclient import HTTPResponse
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application

from handlers.accept import preferred_language
from handlers.static import FOLDER, StaticHandler
from server import make_app
from tests.support import ROOT
from tests.support.here import Serve
from tests.support.program import NOWHERE
from tests.support.raw_http import ask, open_to
from watch import FAULTS

TEMPLATE = (ROOT / "templates" / "live.html").read_text()
WORDS = ROOT / "templates" / "translations" / "zh_CN.csv"

#: What the page and its files may take, in bytes.
LIMIT = 42_500

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


class LiveTest(AsyncHTTPTestCase):
    def get_app(self) -> Application:
        return make_app()

    def ask(self, path: str = PATH, method: str = "GET", **headers: str) -> HTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.fetch(path, method=method, headers=named)

    def setUp(self) -> None:
        super().setUp()
        self.etag = self.ask().headers["Etag"]
        self.others = (OTHER, f"W/{self.etag}", self.etag.strip('"'))

    def test_the_page_is_in_the_readers_language_and_small_with_its_files(self) -> None:
        files = sum(len(file.read_bytes()) for file in FOLDER.iterdir())
        for asked, language, words in (
            ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN", "上次活动"),
            ("en-GB,en;q=0.9,zh;q=0.8", "en", "Last seen"),
            ("zh-CN;q=0.1, en", "en", "Last seen"),
            ("fr", "en", "Last seen"),
        ):
            answer = self.ask("/live", Accept_Language=asked)
            assert answer.headers["Vary"] == "Accept-Language"
            page = answer.body.decode()
            assert f'<html lang="{language}" data-last="5m" data-step="2" data-span="300">' in page
            assert words in page
            assert len(answer.body) + files < LIMIT

    def test_each_module_is_asked_for_by_its_contents_hash(self) -> None:
        answer = self.ask("/live")
        found = re.search(r'<script type="importmap">(.*?)</script>', answer.body.decode())
        assert found
        addresses = json.loads(found[1])["imports"]
        for file in FOLDER.glob("*.js"):
            for name in re.findall(r'(?:from|import) "\./(.*?)"', file.read_text()):
                url = urljoin("/", addresses[f"./static/{name}"])
                assert "max-age" in self.ask(url).headers["Cache-Control"]
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        policy = answer.headers["Content-Security-Policy"]
        assert f"script-src 'self' 'sha256-{digest}';" in policy

    def test_etag_is_strong_and_what_the_client_has_is_not_sent_again(self) -> None:
        assert self.etag.startswith('"')
        for path in (PATH, HASHED, f"{PATH}?v=of-another-version"):
            for method in ("GET", "HEAD"):
                assert self.ask(path, method).headers["Etag"] == self.etag
        assert self.ask("/static/live.css").headers["Etag"] != self.etag
        whole = self.ask(HASHED)
        for tags in (self.etag, f"W/{self.etag}", f"{OTHER}, {self.etag}", "*"):
            answer = self.ask(HASHED, If_None_Match=tags)
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
            answer = self.ask(HASHED, **condition)
            assert (answer.code, answer.body) == (200, CONTENT)
            assert not {"Last-Modified", "Server"} & {*answer.headers}

    def test_one_part_is_sent_of_the_file_that_the_client_has_begun(self) -> None:
        is_same = [{"If_Range": self.etag}, {"If_Match": self.etag}, {"If_Match": "*"}]
        for asked, (first, end) in RANGES.items():
            for condition in ({}, *is_same):
                answer = self.ask(Range=asked, **condition)
                assert (answer.code, answer.body) == (206, CONTENT[first:end]), asked
                assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"
                assert answer.headers["Etag"] == self.etag

    def test_a_client_that_has_begun_another_file_gets_the_whole_or_is_refused(self) -> None:
        for begun in (*self.others, f"{self.etag}, {OTHER}", TOMORROW, "*", ""):
            for asked in "bytes=1-3", NONE[0]:  # whether there is such a part of it or not
                answer = self.ask(Range=asked, If_Range=begun)
                assert (answer.code, answer.body) == (200, CONTENT), begun
                assert "Content-Range" not in answer.headers
        for wanted in (*self.others, "x"):
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
            answer = self.ask(method="HEAD", Range=asked)
            assert (answer.code, answer.headers["Content-Length"]) == (200, str(len(CONTENT)))

    def test_other_pages_have_no_etag_and_no_parts(self) -> None:
        for path in ("/", "/live", "/metrics", "/openapi.yaml", "/healthz", "/static/none"):
            answer = self.ask(path, Range="bytes=1-3", If_None_Match="*")
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


def test_all_words_are_translated_and_no_others() -> None:
    used = {text for _, text in re.findall(r"""_\((["'])(.*?)\1\)""", TEMPLATE)}
    with WORDS.open(newline="") as file:
        rows = list(csv.reader(file))
    assert {english for english, _ in rows} == used
    for english, chinese in rows:
        assert re.search("[\u3000-\u9fff\uff00-\uffef]", chinese), english
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese))


def test_the_scripts_say_no_words_that_the_page_does_not_give_them() -> None:
    given = set(re.findall(r'^"([a-z ]+)": _\(', TEMPLATE, re.MULTILINE))
    scripts = "".join(file.read_text() for file in FOLDER.glob("*.js"))
    said = set(re.findall(r'say\("([^"]+)"', scripts))
    kinds = {"came", "gone", "silent", "away", "version", "down", "refused"}
    states = {f"is {one}" for one in ("came", "gone", "silent", "draining", *FAULTS)}
    assert given == said | kinds | states


ENGLISH = [
    *("", "en,zh", "zh;q=0", "zh;q=0, *", "*", "zh;q=nan, zh;q=2, zh;q=-1", "zh;;q=1, é, -, ;"),
    "de," * 32 + "zh",  # no client has more than 32, and each takes its time
]
CHINESE = [
    *("zh", "ZH-Hans-CN", "zh-TW,zh;q=0.9,en;q=0.8", "zh,en", "de,zh;q=0.5,en;q=0.4"),
    *("en;q=0.2, *;q=0.5", "de," * 31 + "zh"),
]


def test_the_language_of_the_highest_weight_is_preferred() -> None:
    for accepts, language in (ENGLISH, "en"), (CHINESE, "zh-CN"):
        for accept in accepts:
            assert preferred_language(accept, ("en", "zh-CN")) == language, accept
