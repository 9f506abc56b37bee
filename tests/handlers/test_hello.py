"""What ``GET /`` and its relatives answer: bytes, forms, methods, headers."""

import json
import socket

import pytest
from tornado.httpclient import HTTPResponse
from tornado.testing import AsyncHTTPTestCase, gen_test
from tornado.web import Application

from config import Settings
from counter import Visits
from handlers.accept import prefers_json
from server import make_app
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

OFF = "<i>cannot connect to Redis, counter disabled</i>"


class PageCase(AsyncHTTPTestCase):
    """The application over a real Valkey, one for each test."""

    name = "world"

    @pytest.fixture(autouse=True)
    def _real_valkey(self, valkey: Valkey) -> None:
        self.valkey = valkey

    def get_app(self) -> Application:
        self.visits = Visits(self.valkey.url, timeout=PATIENCE)
        return make_app(Settings(name=self.name), self.visits)

    def tearDown(self) -> None:
        self.io_loop.run_sync(self.visits.close)
        super().tearDown()

    def fetch(self, path: str = "/", method: str = "GET", **options) -> HTTPResponse:
        if method in ("POST", "PUT", "PATCH"):
            options.setdefault("body", b"")
        return super().fetch(path, method=method, **options)


class PageTest(PageCase):
    """The page with the name that nobody set."""

    def html(self, visits: object) -> bytes:
        return (
            f"<h3>Hello world!</h3><b>Hostname:</b> {socket.gethostname()}<br/>"
            f"<b>Visits:</b> {visits}"
        ).encode()

    def test_page_is_these_bytes_and_counts_up(self) -> None:
        for number in (1, 2, 3):
            answer = self.fetch()
            assert answer.code == 200
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert answer.body == self.html(number)
        assert self.valkey.counter() == 3

    def test_counter_goes_on_from_what_redis_cli_left(self) -> None:
        self.valkey.client.incr("counter", 41)
        assert self.fetch().body == self.html(42)

    def test_page_without_redis_is_a_greeting_with_status_200(self) -> None:
        self.valkey.kill()
        answer = self.fetch()
        assert answer.code == 200
        assert answer.body == self.html(OFF)

    def test_json_when_it_is_preferred(self) -> None:
        answer = self.fetch(headers={"Accept": "text/html;q=0.5, application/json"})
        assert answer.headers["Content-Type"] == "application/json"
        assert json.loads(answer.body) == {
            "name": "world",
            "hostname": socket.gethostname(),
            "visits": 1,
        }
        assert answer.body.startswith(b'{"name": "world", "hostname": ')
        assert self.fetch().headers["Vary"] == "Accept"

    def test_json_without_redis_says_so(self) -> None:
        self.valkey.kill()
        answer = self.fetch(headers={"Accept": "application/json"})
        assert answer.code == 200
        assert json.loads(answer.body) == {
            "name": "world",
            "hostname": socket.gethostname(),
            "visits": None,
            "error": "cannot connect to Redis, counter disabled",
        }

    def test_head_answers_as_get_does_and_counts_nothing(self) -> None:
        for accept in ("text/html", "application/json"):
            head = self.fetch(method="HEAD", headers={"Accept": accept})
            get = self.fetch(headers={"Accept": accept})
            assert (head.code, head.body) == (200, b"")
            differ = {"Date", "X-Request-Id", "Content-Length"}
            assert {k: v for k, v in head.headers.items() if k not in differ} == {
                k: v for k, v in get.headers.items() if k not in differ
            }
            # The next number is not known, so neither is the length (RFC 9110, 8.6).
            assert "Content-Length" not in head.headers
        assert self.valkey.counter() == 2

    def test_only_get_of_the_page_counts(self) -> None:
        for path in ("/healthz", "/readyz", "/favicon.ico", "/robots.txt", "/index.html", "//"):
            self.fetch(path)
            self.fetch(path, method="HEAD")
        for method in ("HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            self.fetch(method=method)
        assert self.valkey.counter() == 0
        self.fetch("/?a=query")
        assert self.valkey.counter() == 1

    def test_if_none_match_does_not_turn_a_counted_visit_into_304(self) -> None:
        answer = self.fetch(headers={"If-None-Match": "*"})
        assert (answer.code, answer.body) == (200, self.html(1))
        assert "Etag" not in answer.headers

    def test_other_methods_are_405_with_what_is_allowed(self) -> None:
        for path in ("/", "/healthz", "/readyz"):
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
                answer = self.fetch(path, method=method, allow_nonstandard_methods=True)
                assert (answer.code, answer.headers["Allow"]) == (405, "GET, HEAD")
                assert answer.body == b"405 Method Not Allowed\n"

    def test_unknown_paths_are_404_whatever_the_method(self) -> None:
        for path in ("/nothing", "/healthz/", "//", "/%00", "/%ff", "/..", "/static/"):
            for method in ("GET", "POST", "BREW"):
                answer = self.fetch(path, method=method, allow_nonstandard_methods=True)
                assert (answer.code, answer.body) == (404, b"404 Not Found\n")
            assert self.fetch(path, method="HEAD").code == 404

    def test_every_answer_carries_the_headers_that_all_do(self) -> None:
        for path, method in (
            *(("/", "GET"), ("/", "HEAD"), ("/", "POST"), ("/nothing", "GET")),
            *(("/healthz", "GET"), ("/readyz", "GET"), ("/readyz", "DELETE")),
        ):
            headers = self.fetch(path, method=method).headers
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Content-Security-Policy"].startswith("default-src 'none';")
            assert "Server" not in headers
            assert "tornado" not in str(list(headers.get_all())).lower()

    def test_request_id_is_echoed_when_well_formed_and_made_otherwise(self) -> None:
        def answered(request_id: str) -> str:
            return self.fetch("/healthz", headers={"X-Request-ID": request_id}).headers[
                "X-Request-ID"
            ]

        for well_formed in ("a", "3f2c-11.b_X", "x" * 128):
            assert answered(well_formed) == well_formed
        made = set()
        for ill_formed in ("", "x" * 129, "a b", 'a"b', "a,b", "\u00e9", "<script>"):
            made.add(answered(ill_formed))
        assert len(made) == 7
        assert all(len(one) == 32 and one.isalnum() for one in made)

    def test_health_answers_ok(self) -> None:
        answer = self.fetch("/healthz")
        assert (answer.code, json.loads(answer.body)) == (200, {"status": "ok"})
        assert answer.headers["Content-Type"] == "application/json"

    @gen_test
    async def test_ready_tells_whether_redis_is_up_and_stays_ready_without(self) -> None:
        async def ready() -> tuple[int, dict]:
            answer = await self.http_client.fetch(self.get_url("/readyz"), raise_error=False)
            return answer.code, json.loads(answer.body)

        await self.visits.start(PATIENCE)
        assert await ready() == (
            200,
            {"status": "ready", "redis": "up", "counting": "exactly once"},
        )
        self.valkey.kill()
        await self.visits.count()
        for code, status in ((200, "ready"), (503, "draining")):
            if code == 503:
                self._app.settings["draining"].set()
            answered, said = await ready()
            assert "Connection refused" in said.pop("reason")
            assert answered == code
            assert said == {"status": status, "redis": "down", "counting": "exactly once"}


class EscapingTest(PageCase):
    """The page with a name that is markup."""

    name = "<script>alert('&')</script>\"\N{SNOWMAN}"

    def test_name_is_escaped_in_html(self) -> None:
        escaped = "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;&quot;\N{SNOWMAN}"
        assert self.fetch().body.decode().startswith(f"<h3>Hello {escaped}!</h3><b>")

    def test_name_is_itself_in_json(self) -> None:
        answer = self.fetch(headers={"Accept": "application/json"})
        assert json.loads(answer.body)["name"] == self.name


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("application/json", True),
        ("APPLICATION/JSON", True),
        ("application/*", True),
        ("text/*, application/json;q=0.9", False),
        ("text/html;q=0.8, application/json;q=0.9", True),
        ("text/html ; q=0.8 , application/json ; q=0.9", True),
        ("text/html, application/json", False),
        ("application/json, */*", True),  # the more specific wins (RFC 9110, 12.5.1)
        ("application/json, text/plain, */*", True),  # axios, Angular
        ("text/*, application/json", True),
        ("text/html, application/*", False),
        ("application/json, */*;q=0.5", True),
        ("application/json;q=0, */*", False),
        ("text/html;q=0, */*", True),
        ("text/html;q=0", False),
        ("text/html;q=0, application/json;q=0", False),
        ("application/json;q=0.4;x=y, text/html;q=0.5", False),
        ("application/json;charset=utf-8", True),
        ("application/json;version=2;q=0.4, text/html;q=0.5", False),
        ("application/json;q=1.000, text/html;q=0.999", True),
        # What is not well formed is passed over.
        ("application/json;q=2", False),
        ("application/json;q=-1", False),
        ("application/json;q=high", False),
        ("application/json;q=0.1234", False),
        ("json", False),
        (";,,;q=1,/,application/json", True),
        # No client has more than 32, and each takes its time.
        ("a/b," * 31 + "application/json", True),
        ("a/b," * 32 + "application/json", False),
        ("a/b," * 4000, False),
        ("application/json" + ";a=b" * 7 + ";q=0.4, text/html;q=0.5", False),
        ("application/json" + ";a=b" * 8 + ";q=0.4, text/html;q=0.5", True),
        # A browser's own.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
    ],
)
def test_json_is_served_when_its_weight_is_higher(accept: str, expected: bool) -> None:
    assert prefers_json(accept) is expected
