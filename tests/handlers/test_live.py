"""``GET /live``: its languages, its words, its size, and which of its files a browser may run."""

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
from handlers.static import FOLDER
from server import make_app
from tests.support import ROOT
from watch import FAULTS

TEMPLATE = (ROOT / "templates" / "live.html").read_text()
WORDS = ROOT / "templates" / "translations" / "zh_CN.csv"

#: What the page and its files may take, in bytes.
LIMIT = 42_500


class LiveTest(AsyncHTTPTestCase):
    def get_app(self) -> Application:
        return make_app()

    def ask(self, path: str = "/live", **headers: str) -> HTTPResponse:
        return self.fetch(
            path, headers={name.replace("_", "-"): one for name, one in headers.items()}
        )

    def page(self, language: str) -> str:
        answer = self.ask(Accept_Language=language)
        assert answer.headers["Vary"] == "Accept-Language"
        return answer.body.decode()

    def test_the_page_is_in_the_readers_language(self) -> None:
        for asked, language, words in (
            ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN", "上次活动"),
            ("en-GB,en;q=0.9,zh;q=0.8", "en", "Last seen"),
            ("zh-CN;q=0.1, en", "en", "Last seen"),
            ("fr", "en", "Last seen"),
        ):
            page = self.page(asked)
            assert f'<html lang="{language}" data-last="5m" data-step="2" data-span="300">' in page
            assert words in page

    def test_the_page_and_its_files_are_small(self) -> None:
        files = sum(len(file.read_bytes()) for file in FOLDER.iterdir())
        for language in ("en", "zh"):
            assert len(self.page(language).encode()) + files < LIMIT

    def test_each_module_is_asked_for_by_its_contents_hash(self) -> None:
        answer = self.ask()
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
    said = {
        key
        for file in FOLDER.glob("*.js")
        for key in re.findall(r'say\("([^"]+)"', file.read_text())
    }
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
