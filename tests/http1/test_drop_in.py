"""Our Application and RequestHandler take the places of Tornado's."""

import asyncio
import gzip
from typing import Any, ClassVar

import pytest
from tornado import httpserver, web
from tornado.routing import URLSpec

import http1
from tests.support.served import GET, Answer, Serve, Served, get


def finishing(base: Any, eager: bool) -> type[web.RequestHandler]:
    """Return a handler that finishes its answer, or fails, in the way that a header asks for."""

    class Handler(base):
        EAGER_START = eager

        async def get(self) -> None:
            self.set_header("Content-Type", "text/plain")  # else nothing is packed
            waited_for = asyncio.get_running_loop().create_future()
            match self.request.headers["X-By"]:
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
                case "not finishing":
                    self.write("whole")
                case "no content":
                    self.set_status(204)
                    self.finish("content")  # which is an error
                case "twice":
                    self.finish("once")
                    self.finish("twice")  # which is an error, that the client does not see
                case "raising":
                    raise ZeroDivisionError
                case "waiting and raising":
                    waited_for.set_exception(ZeroDivisionError())
                    await waited_for
                case "cancelled":
                    waited_for.cancel()
                    await waited_for
                case "raising in finish":
                    self.finish = self.fail
                case "timeout":
                    async with asyncio.timeout(60):
                        await asyncio.sleep(0)
                    self.finish("in a task")

        head = get

        def fail(self, *chunks: object) -> None:
            del self.finish  # 500 is finished in Tornado's way
            raise ZeroDivisionError

        def set_etag_header(self) -> None:
            pass  # ours makes none

    return Handler


FAILING = ("raising", "waiting and raising", "cancelled", "raising in finish")
WRONG = ("no content", "twice", *FAILING)
WAYS = ("text", "bytes", "object", "nothing", "pieces", "flushed pieces", "not finishing", *WRONG)


def seen(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    headers = dict(answer.headers)
    # Ours names no server and no type of its own accord; dates may differ.
    for name in ("server", "date", "etag", "content-type"):
        headers.pop(name, None)
    # What was packed has the time in it.
    packed = answer.body and "content-encoding" in headers
    return answer.status, headers, gzip.decompress(answer.body) if packed else answer.body


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("eager", [False, True], ids=["in a task", "eager"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answer_is_finished_as_by_tornado(
    method: str, eager: bool, compressed: bool, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    kinds: list[tuple[Any, Any, Any]] = [
        (http1.HTTPServer, web.Application, web.RequestHandler),
        (http1.HTTPServer, http1.Application, http1.RequestHandler),
        (httpserver.HTTPServer, http1.Application, http1.RequestHandler),
    ]
    stock, *ours = (
        serve(server, app([("/", finishing(base, eager))], compress_response=compressed))
        for server, app, base in kinds
    )

    async def told(site: Served, way: str) -> object:
        caplog.clear()
        asked = get("/", f"X-By: {way}", "Accept-Encoding: gzip", method=method)
        client = await site.connect()
        answer = seen(await client.ask(asked, method))
        client.half_close()
        assert await client.rest() == b"", "something follows"
        errors = [(one.name, repr(one.exc_info[1])) for one in caplog.records if one.exc_info]
        assert bool(errors) == (way in WRONG)
        assert (answer[0] == 500) == (way in (*FAILING, "no content"))
        return answer, errors

    for way in (*WAYS, *(() if eager else ("timeout",))):
        expected = await told(stock, way)
        for site in ours:
            assert await told(site, way) == expected, way


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


@pytest.mark.parametrize(
    ("rules", "path", "body"),
    [
        ([("/a", Eager)], "/a", "eager"),
        ([("/a", Eager)], "/a?b=c", "eager"),
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
async def test_the_first_rule_that_matches_answers(
    rules: list[Any], path: str, body: str, serve: Serve
) -> None:
    app = http1.Application([URLSpec(*rule) for rule in rules])
    assert (await serve(app=app).ask(get(path))).body.decode() == body


async def test_rules_for_a_host_come_first(serve: Serve) -> None:
    app = http1.Application([("/", Eager)])
    app.add_handlers(r"example\.org", [("/", First)])
    site = serve(app=app)
    assert (await site.ask(GET.replace(b"Host: a", b"Host: example.org"))).body == b"first"
    assert (await site.ask(GET)).body == b"by Tornado"
