"""What the application leaves out of Tornado's way of a request makes no difference to handlers."""

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.escape import json_decode
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer as TornadosServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    RequestStartLine,
)
from tornado.ioloop import IOLoop
from tornado.routing import URLSpec
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.testing import bind_unused_port
from tornado.web import RequestHandler

from http1 import Application, HTTPServer
from http1.tornado_internals import PathRequest, new_handler
from tests.support.patient_loops import LOOPS, time_of


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


@pytest.mark.gen_test
@pytest.mark.parametrize("target", ["/", "/?query", "/nothing"])
async def test_a_clock_that_is_set_back_makes_no_time_negative(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []

    class Handler(RequestHandler):
        EAGER_START = True

        async def get(self) -> None:
            monkeypatch.setattr(time, "time", lambda: 0.0)

    app = Application(
        [("/", Handler)], log_function=lambda one: taken.append(one.request.request_time())
    )
    server = HTTPServer(app)
    listening, port = bind_unused_port()
    server.add_sockets([listening])
    await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}{target}", raise_error=False)
    monkeypatch.undo()
    server.stop()
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
        token = seen.set(self.request.headers["X-Waits"])
        loop = asyncio.get_running_loop()
        for _ in range(int(self.request.headers["X-Waits"])):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
        set_to = seen.get()
        seen.reset(token)  # in another context it could not be
        self.finish(
            {
                "before": before,
                "seen": set_to,
                "body": self.request.body.decode(),
                "field": self.get_argument("field", ""),
                "at once": not self.prepared,
            }
        )

    post = get

    async def put(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        self.finish("in a task")


class _UnfinishedHandler(RequestHandler):
    EAGER_START = True

    async def get(self) -> None:
        self.write("whole")

    async def head(self) -> None:
        self.set_header("X-Head", "1")


class _FailingHandler(RequestHandler):
    """Fails in the way that its header asks for."""

    EAGER_START = True

    async def get(self) -> None:
        waited_for = asyncio.get_running_loop().create_future()
        match self.request.headers["X-Fails"]:
            case "by itself":
                raise ZeroDivisionError
            case "waiting":
                waited_for.set_exception(ZeroDivisionError())
            case "cancelled":
                waited_for.cancel()
            case "in finish":
                self.finish = self.fail  # type: ignore[method-assign,assignment]
                return
        await waited_for

    def fail(self) -> None:
        del self.finish  # 500 is finished in Tornado's way
        raise ZeroDivisionError

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        if "X-Fails-Again" in self.request.headers:
            raise KeyError
        super().send_error(status_code, **kwargs)


class _InTaskHandler(_AtOnceHandler):
    EAGER_START = False


RULES = [
    URLSpec("/", _AtOnceHandler),
    URLSpec("/unfinished", _UnfinishedHandler),
    URLSpec("/fails", _FailingHandler),
    URLSpec("/in-task", _InTaskHandler),
]


@pytest.fixture
def new_loop(monkeypatch: pytest.MonkeyPatch) -> Callable[[], asyncio.AbstractEventLoop]:
    monkeypatch.setattr(IOLoop, "time", time_of)
    return LOOPS["asyncio"]


@pytest.fixture(params=[HTTPServer, TornadosServer])
def url(request: pytest.FixtureRequest, io_loop: Any) -> Any:
    """Serve by our server, and by Tornado's own."""
    server = request.param(Application(RULES))
    listening, port = bind_unused_port()
    server.add_socket(listening)
    yield f"http://127.0.0.1:{port}"
    server.stop()
    io_loop.run_sync(server.close_all_connections)


async def ask(url: str, method: str = "GET", **kwargs: Any) -> Any:
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(url, method=method, raise_error=False, **kwargs)
    finally:
        client.close()


@pytest.mark.gen_test
@pytest.mark.parametrize("waits", ["0", "1", "5"])
async def test_a_handler_that_begins_at_once_waits_for_futures_in_a_context_of_its_own(
    url: str, waits: str
) -> None:
    answers = await asyncio.gather(*(ask(url, headers={"X-Waits": waits}) for _ in range(5)))
    for answer in answers:
        assert answer.code == 200
        assert json_decode(answer.body) == {
            "before": "nothing",
            "seen": waits,
            "body": "",
            "field": "",
            "at once": True,
        }


@pytest.mark.gen_test
async def test_it_finishes_by_itself(url: str) -> None:
    assert (await ask(f"{url}/unfinished")).body == b"whole"
    assert (await ask(f"{url}/unfinished", "HEAD")).headers["X-Head"] == "1"


@pytest.mark.gen_test
async def test_a_body_that_means_nothing_is_passed_over(url: str) -> None:
    answer = await ask(
        url, headers={"X-Waits": "1"}, body="x" * 300_000, allow_nonstandard_methods=True
    )
    assert json_decode(answer.body)["at once"]
    assert json_decode(answer.body)["body"] == ""


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("method", "target", "seen"),
    [
        ("GET", "?field=b", {"body": "", "field": "b"}),
        ("POST", "", {"body": "field=a", "field": "a"}),
    ],
)
async def test_what_has_a_query_or_a_body_is_answered_in_tornados_way(
    url: str, method: str, target: str, seen: dict[str, str]
) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", "X-Waits": "1"}
    answer = await ask(url + target, method, headers=form, body=seen["body"] or None)
    assert json_decode(answer.body) == {
        "before": "nothing",
        "seen": "1",
        "at once": False,
        **seen,
    }


@pytest.mark.gen_test
async def test_a_large_body_comes_whole(url: str) -> None:
    body = "x" * 300_000
    answer = await ask(url, "POST", body=body, headers={"X-Waits": "0"})
    assert json_decode(answer.body)["body"] == body


@pytest.mark.gen_test
async def test_a_handler_that_does_not_begin_at_once_may_have_a_timeout(url: str) -> None:
    assert (await ask(f"{url}/in-task", "PUT", body="")).body == b"in a task"


@pytest.mark.gen_test
async def test_a_method_that_it_has_not_is_405(url: str) -> None:
    assert (await ask(url, "HEAD")).code == 405


@pytest.mark.gen_test
@pytest.mark.parametrize("fails", ["by itself", "waiting", "cancelled", "in finish"])
async def test_its_exceptions_are_answered_with_500(
    url: str, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await ask(f"{url}/fails", headers={"X-Fails": fails})).code == 500
    assert [record.name for record in caplog.records if record.exc_info] == ["tornado.application"]


@pytest.mark.gen_test
async def test_an_exception_while_one_is_handled_is_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"X-Fails": "waiting", "X-Fails-Again": "1"}
    with pytest.raises(HTTPTimeoutError):  # as with Tornado, nobody answers
        await ask(f"{url}/fails", headers=headers, request_timeout=0.2)
    assert "Exception in exception handler" in [record.getMessage() for record in caplog.records]


def test_a_handler_that_begins_at_once_is_what_tornado_makes_of_it_but_for_templates() -> None:
    app = Application(RULES)
    request: Any = both("a")[0]
    request.connection.set_close_callback = lambda callback: None
    ours, theirs = (vars(one) for one in (new_handler(app, RULES[0], request), _made(app, request)))
    assert theirs.keys() - ours.keys() == {"ui", "_auto_finish", "_prepared_future"}
    assert ours.keys() - theirs.keys() == {"_transforms"}
    for name in ours.keys() & theirs.keys() - {"_headers"}:
        assert ours[name] == theirs[name]


def _made(app: Application, request: HTTPServerRequest) -> RequestHandler:
    return _AtOnceHandler(app, request)


def test_where_tornado_is_instrumented_no_handler_begins_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Application(RULES).eager
    instrumented = functools.wraps(RequestHandler.__init__)(lambda *args: None)
    monkeypatch.setattr(RequestHandler, "__init__", instrumented)
    assert not Application(RULES).eager
