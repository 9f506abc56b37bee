"""Our Application and RequestHandler take the places of Tornado's."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from tornado import httpserver, web
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.routing import URLSpec
from tornado.testing import bind_unused_port

import http1


@contextlib.asynccontextmanager
async def serving(app: web.Application, own: bool = True) -> AsyncIterator[str]:
    """Serve an application by our server, or by Tornado's own."""
    server = (http1.HTTPServer if own else httpserver.HTTPServer)(app)
    listening, port = bind_unused_port()
    server.add_socket(listening)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        await server.close_all_connections()


async def ask(url: str, method: str = "GET", **headers: str) -> HTTPResponse:
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(
            url, method=method, headers=headers, raise_error=False, decompress_response=False
        )
    finally:
        client.close()


def finishing(base: type[web.RequestHandler]) -> type[web.RequestHandler]:
    """Return a handler that finishes its answer in the way that its query asks for."""

    class Handler(base):  # type: ignore[misc, valid-type]
        async def get(self) -> None:
            match self.get_query_argument("by"):
                case "text":
                    self.finish("wörds")
                case "bytes":
                    self.finish(b"words")
                case "object":
                    self.finish({"a": 1})
                case "nothing":
                    self.finish()
                case "pieces":
                    self.write("first, ")
                    self.finish("last")
                case "flushed pieces":
                    self.write("first, ")
                    await self.flush()
                    self.finish("last")
                case "no content":
                    self.set_status(204)
                    self.finish("content")  # which is an error
                case "twice":
                    self.finish("once")
                    self.finish("twice")  # which is an error, that the client does not see

        head = get

        def set_etag_header(self) -> None:
            pass  # ours makes none

    return Handler


WAYS = [
    *("text", "bytes", "object", "nothing", "pieces", "flushed pieces", "no content", "twice"),
]


def seen(answer: HTTPResponse) -> tuple[int, dict[str, str], bytes]:
    # Ours names no server and no type of its own accord; dates may differ.
    left_out = ("Server", "Date", "Content-Type", "Etag")
    headers = {name: one for name, one in answer.headers.items() if name not in left_out}
    return answer.code, headers, answer.body


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_is_finished_as_by_tornado(
    way: str, method: str, compressed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    answers, errors = [], []
    for base in (web.RequestHandler, http1.RequestHandler):
        caplog.clear()
        app = web.Application([("/", finishing(base))], compress_response=compressed)
        async with serving(app) as url:
            query = f"{url}/?by={way.replace(' ', '%20')}"
            answers.append(seen(await ask(query, method, Accept_Encoding="gzip")))
        errors.append([one.exc_info[1] for one in caplog.records if one.exc_info])
    stock, ours = answers
    assert ours == stock
    assert [type(one) for one in errors[1]] == [type(one) for one in errors[0]]
    assert [str(one) for one in errors[1]] == [str(one) for one in errors[0]]
    assert bool(errors[1]) == (way in ("no content", "twice"))


class Eager(http1.RequestHandler):
    """Tells that it was started eagerly: `prepare` was not called."""

    EAGER_START: ClassVar[bool] = True
    is_eager = True

    def prepare(self) -> None:
        self.is_eager = False

    async def get(self) -> None:
        self.finish("eager" if self.is_eager else "by Tornado")


class First(web.RequestHandler):
    def get(self, *path_args: str) -> None:
        self.finish("first")


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize(
    ("rules", "path", "body"),
    [
        ([("/a", Eager)], "/a", "eager"),
        ([("/a", Eager)], "/a?b=c", "by Tornado"),
        ([("/a", Eager), ("/a", First)], "/a", "eager"),
        ([("/a", First), ("/a", Eager)], "/a", "first"),
        ([("/.*", First), ("/a", Eager)], "/a", "first"),
        ([("/b.*", First), ("/a", Eager)], "/a", "eager"),
        ([("/a.b", Eager)], "/a.b", "by Tornado"),
        ([("/a.b", Eager)], "/a-b", "by Tornado"),
        ([("/(a)?", First), ("/", Eager)], "/", "first"),
    ],
    ids=str,
)
async def test_the_first_rule_that_matches_answers(rules: list[Any], path: str, body: str) -> None:
    app = http1.Application([URLSpec(*rule) for rule in rules])
    async with serving(app) as url:
        assert (await ask(url + path)).body.decode() == body


@pytest.mark.gen_test(timeout=30)
async def test_rules_for_a_host_come_first() -> None:
    app = http1.Application([("/", Eager)])
    app.add_handlers(r"example\.org", [("/", First)])
    async with serving(app) as url:
        assert (await ask(url, Host="example.org")).body == b"first"
        assert (await ask(url)).body == b"by Tornado"
