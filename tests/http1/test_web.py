"""What the application leaves out of Tornado's way of a request makes no difference to handlers."""

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httpserver import HTTPServer as TornadosServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    RequestStartLine,
)
from tornado.routing import URLSpec
from tornado.web import RequestHandler

from http1 import Application, HTTPServer
from http1.tornado_internals import PathRequest, new_handler
from tests.support.served import GET, Serve, Served, get
from tests.support.waiting import eventually


def both(host: str, target: str = "/") -> list[HTTPServerRequest]:
    """Return a request as ours and as Tornado's."""
    connection = HTTPConnection()
    connection.context = SimpleNamespace(  # type: ignore[attr-defined]
        remote_ip="192.0.2.1", protocol="https"
    )
    line = RequestStartLine("GET", target, "HTTP/1.1")
    headers = HTTPHeaders({"Host": host, "Cookie": "a=b"})
    server = object()
    return [
        PathRequest(connection, server, line, headers, host),
        HTTPServerRequest(
            connection=connection, server_connection=server, start_line=line, headers=headers
        ),
    ]


@pytest.mark.parametrize("target", ["/", "/nothing/%20", "*", ""])
@pytest.mark.parametrize("host", ["Example.org", "example.org:8080", "[::1]:80", "192.0.2.7", ""])
def test_a_request_without_query_is_what_tornado_makes_of_it(host: str, target: str) -> None:
    ours, theirs = (vars(request) for request in both(host, target))
    times = [one.pop("_start_time") for one in (ours, theirs)]
    del ours["_begun"]
    assert ours == theirs
    assert abs(times[1] - times[0]) < 60


@pytest.mark.parametrize("target", ["/", "/?query", "/nothing"])
async def test_a_clock_that_is_set_back_makes_no_time_negative(
    target: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []

    class Handler(RequestHandler):
        EAGER_START = True

        async def get(self) -> None:
            monkeypatch.setattr(time, "time", lambda: 0.0)

    app = Application(
        [("/", Handler)], log_function=lambda one: taken.append(one.request.request_time())
    )
    await serve(app=app).ask(get(target))
    monkeypatch.undo()
    assert len(taken) == 1
    assert 0 <= taken[0] < 60


def test_requests_share_nothing_that_a_handler_may_change() -> None:
    one, other = both("a")[0], both("a")[0]
    for name in ("arguments", "query_arguments", "body_arguments", "files"):
        assert getattr(one, name) is not getattr(other, name)
    assert one.arguments is not one.query_arguments
    assert one.cookies["a"].value == "b"
    assert one.full_url() == "https://a/"


@pytest.mark.parametrize("host", ["a,b", "a b", "a/b", "\x7f"])
def test_a_malformed_host_is_refused_each_time(host: str) -> None:
    for _ in range(2):
        with pytest.raises(HTTPInputError):
            both(host)


seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


class _AtOnceHandler(RequestHandler):
    """Waits for a future as often as its header says, and tells what it saw."""

    EAGER_START = True
    prepared = False

    def prepare(self) -> None:
        self.prepared = True

    async def get(self) -> None:
        before = seen.get()
        token = seen.set(self.request.headers.get("X-Waits", "1"))
        loop = asyncio.get_running_loop()
        for _ in range(int(seen.get())):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
        set_to = seen.get()
        seen.reset(token)  # in another context it could not be
        body, field = self.request.body.decode(), self.get_argument("field", "")
        at_once = not self.prepared
        self.finish(
            {"before": before, "seen": set_to, "body": body, "field": field, "at once": at_once}
        )

    post = get


class _FailingTwiceHandler(RequestHandler):
    EAGER_START = True

    async def get(self) -> None:
        raise ZeroDivisionError

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        raise KeyError


RULES = [
    URLSpec("/", _AtOnceHandler),
    URLSpec("/fails", _FailingTwiceHandler),
]


@pytest.fixture(params=[HTTPServer, TornadosServer], ids=["ours", "Tornado's"])
def site(request: pytest.FixtureRequest, serve: Serve) -> Served:
    return serve(request.param, Application(RULES))


LARGE = "x" * 300_000
FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("method", "target", "waits", "body", "told"),
    [
        *(("GET", "/", waits, "", {"at once": True}) for waits in ("0", "1", "5")),
        ("GET", "/", "1", LARGE, {"at once": True}),  # a body of GET means nothing
        ("GET", "/?field=b", "1", "", {"at once": True, "field": "b"}),
        ("POST", "/", "1", "field=a", {"body": "field=a", "field": "a"}),
        ("POST", "/", "1", LARGE, {"body": LARGE}),
    ],
    ids=["at once", "one turn", "turns", "body of GET", "query", "form", "large body"],
)
async def test_a_handler_runs_in_a_context_of_its_own_and_get_at_once(
    site: Served, method: str, target: str, waits: str, body: str, told: dict[str, Any]
) -> None:
    lines = (FORM, f"X-Waits: {waits}", f"Content-Length: {len(body)}")
    asked = get(target, *lines, method=method) + body.encode()
    expected = {"before": "nothing", "seen": waits, "body": "", "field": "", "at once": False}
    for answer in await asyncio.gather(*(site.ask(asked) for _ in range(5))):
        assert (answer.status, answer.json) == (200, expected | told)


async def test_an_exception_while_one_is_handled_is_logged_and_a_method_it_has_not_is_405(
    site: Served, caplog: pytest.LogCaptureFixture
) -> None:
    (await site.connect()).send(get("/fails"))
    said = "Exception in exception handler"  # as with Tornado, nobody answers
    await eventually(lambda: said in [record.getMessage() for record in caplog.records])
    assert (await site.ask(GET)).status == 200
    assert (await site.ask(get(method="HEAD"), "HEAD")).status == 405


def test_a_handler_that_begins_at_once_is_what_tornado_makes_of_it_but_for_templates() -> None:
    app = Application(RULES)
    request: Any = both("a")[0]
    request.connection.set_close_callback = lambda callback: None
    made: Callable[..., RequestHandler] = _AtOnceHandler
    ours, theirs = (vars(one) for one in (new_handler(app, RULES[0], request), made(app, request)))
    assert theirs.keys() - ours.keys() == {"ui", "_auto_finish", "_prepared_future"}
    assert ours.keys() - theirs.keys() == {"_transforms"}
    for name in ours.keys() & theirs.keys() - {"_headers"}:
        assert ours[name] == theirs[name]


def test_where_tornado_is_instrumented_no_handler_begins_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Application(RULES).eager
    instrumented = functools.wraps(RequestHandler.__init__)(lambda *args: None)
    monkeypatch.setattr(RequestHandler, "__init__", instrumented)
    assert not Application(RULES).eager
