"""What the application leaves out of Tornado's way of a request makes no difference to handlers."""

import asyncio
import contextvars
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
from tornado.routing import URLSpec
from tornado.testing import bind_unused_port
from tornado.web import RequestHandler

from application import PathApplication, PlainRequest
from httpserver import HTTPServer


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
        PlainRequest(connection, server, line, headers),
        HTTPServerRequest(
            connection=connection, server_connection=server, start_line=line, headers=headers
        ),
    ]


@pytest.mark.parametrize("target", ["/", "/nothing/%20", "*", ""])
@pytest.mark.parametrize("host", ["Example.org", "example.org:8080", "[::1]:80", "192.0.2.7", ""])
def test_a_request_without_query_is_what_tornado_makes_of_it(host: str, target: str) -> None:
    ours, theirs = (vars(request) for request in both(host, target))
    times = [one.pop("_start_time") for one in (ours, theirs)]
    assert ours == theirs
    assert abs(times[1] - times[0]) < 60


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

    BEGINS_AT_ONCE = True

    async def post(self) -> None:
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
            }
        )

    async def put(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        self.finish("in a task")

    async def get(self) -> None:
        waited_for = asyncio.get_running_loop().create_future()
        waited_for.set_exception(ZeroDivisionError())
        await waited_for

    async def delete(self) -> None:
        waited_for = asyncio.get_running_loop().create_future()
        waited_for.cancel()
        await waited_for


class _InTaskHandler(_AtOnceHandler):
    BEGINS_AT_ONCE = False


@pytest.fixture(params=[HTTPServer, TornadosServer])
def url(request: pytest.FixtureRequest, io_loop: Any) -> Any:
    """Serve by our server, and by Tornado's own."""
    app = PathApplication([URLSpec("/", _AtOnceHandler), URLSpec("/in-task", _InTaskHandler)])
    server = request.param(app)
    listening, port = bind_unused_port()
    server.add_socket(listening)
    yield f"http://127.0.0.1:{port}"
    server.stop()
    io_loop.run_sync(server.close_all_connections)


async def ask(url: str, method: str = "POST", **kwargs: Any) -> Any:
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
    form = {"Content-Type": "application/x-www-form-urlencoded", "X-Waits": waits}
    answers = await asyncio.gather(*(ask(url, body="field=a", headers=form) for _ in range(5)))
    for answer in answers:
        assert answer.code == 200
        assert json_decode(answer.body) == {
            "before": "nothing",
            "seen": waits,
            "body": "field=a",
            "field": "a",
        }


@pytest.mark.gen_test
async def test_with_a_query_it_is_answered_alike(url: str) -> None:
    answer = await ask(f"{url}?field=b", body="", headers={"X-Waits": "1"})
    assert json_decode(answer.body) == {
        "before": "nothing",
        "seen": "1",
        "body": "",
        "field": "b",
    }


@pytest.mark.gen_test
async def test_a_handler_that_does_not_begin_at_once_may_have_a_timeout(url: str) -> None:
    assert (await ask(f"{url}/in-task", "PUT", body="")).body == b"in a task"


@pytest.mark.gen_test
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_its_exceptions_are_answered_with_500(
    url: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await ask(url, method)).code == 500
    assert [record.name for record in caplog.records if record.exc_info] == ["tornado.application"]


@pytest.mark.gen_test
async def test_a_large_body_comes_whole(url: str) -> None:
    body = "x" * 300_000
    answer = await ask(url, body=body, headers={"X-Waits": "0"})
    assert json_decode(answer.body)["body"] == body
