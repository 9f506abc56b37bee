"""Our Application and RequestHandler take the places of Tornado's."""

import asyncio
import contextvars
import functools
import gzip
import time
from typing import Any

import pytest
from tornado import httpserver, web
from tornado.routing import AnyMatches

import http1
from tests.support import Caplog, Patch
from tests.support.served import GET, Answer, Serve, Served, get
from tests.support.waiting import eventually


def finishing(base: Any, eager: bool) -> type[web.RequestHandler]:
    """Return a handler that finishes its answer, or fails, in the way that a header asks for."""

    class Handler(base):
        EAGER_START = eager

        def initialize(self, given: str) -> None:
            self.given = given

        async def get(self) -> None:
            self.set_header("Content-Type", "text/plain")  # else nothing is packed
            match self.request.headers["X-By"]:
                case "text":
                    self.finish("wörds")
                case "object":
                    self.finish({"a": 1})
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
                case "cancelled":
                    waited_for = asyncio.get_running_loop().create_future()
                    waited_for.cancel()
                    await waited_for
                case "raising in finish":
                    self.finish = self.fail
                case "telling":
                    request = vars(self.request)
                    told = {name: repr(request[name]) for name in request.keys() - DIFFERENT}
                    self.request.arguments["changed"] = []  # in those of this request alone
                    told |= {"given": self.given, "after": repr(self.request.query_arguments)}
                    self.finish(dict(sorted(told.items())))
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


FAILING = ("raising", "cancelled", "raising in finish")
WRONG = ("no content", "twice", *FAILING)
TOLD = ("telling", "telling")  # to two clients
WAYS = ("text", "object", "pieces", "flushed pieces", "not finishing", *TOLD, *WRONG)

#: Ours names no server and no type of its own accord; dates may differ, and objects do.
DIFFERENT = {
    *("server", "date", "etag", "content-type"),
    *("connection", "server_connection", "headers", "_start_time", "_begun"),
}


def seen(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in answer.headers.items() if name not in DIFFERENT}
    # What was packed has the time in it.
    packed = answer.body and "content-encoding" in headers
    return answer.status, headers, gzip.decompress(answer.body) if packed else answer.body


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("eager", [False, True], ids=["in a task", "eager"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answer_is_finished_as_by_tornado(
    method: str, eager: bool, compressed: bool, serve: Serve, caplog: Caplog
) -> None:
    given = {"given": "by the rule"}
    kinds: list[tuple[Any, Any, Any]] = [
        (http1.HTTPServer, web.Application, web.RequestHandler),
        (http1.HTTPServer, http1.Application, http1.RequestHandler),
        (httpserver.HTTPServer, http1.Application, http1.RequestHandler),
    ]
    stock, *ours = (
        serve(server, app([("/", finishing(base, eager), given)], compress_response=compressed))
        for server, app, base in kinds
    )

    async def told(site: Served, way: str) -> object:
        caplog.clear()
        asked = get("/", f"X-By: {way}", "Accept-Encoding: gzip", method=method)
        client = (await site.connect()).send(asked.replace(b"Host: a", b"Host: A:80"))
        answer = seen(await client.answer(method))
        client.half_close()
        assert await client.rest() == b"", "something follows, or it is not closed at once"
        errors = [(one.name, repr(one.exc_info[1])) for one in caplog.records if one.exc_info]
        assert bool(errors) == (way in WRONG)
        assert (answer[0] == 500) == (way in (*FAILING, "no content"))
        return answer, errors

    for way in (*WAYS, *(() if eager else ("timeout",))):
        expected = await told(stock, way)
        for site in ours:
            assert await told(site, way) == expected, way


context: contextvars.ContextVar[str] = contextvars.ContextVar("context", default="nothing")


class Eager(web.RequestHandler):
    """Waits for a future as often as its header says, and tells what it saw."""

    EAGER_START = True
    prepared = False

    def prepare(self) -> None:
        self.prepared = True

    async def get(self) -> None:
        before = context.get()
        token = context.set(self.request.headers.get("X-Waits", "0"))
        loop = asyncio.get_running_loop()
        for _ in range(int(context.get())):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
        told = {"by": "Tornado" if self.prepared else "eager", "saw": [before, context.get()]}
        context.reset(token)  # in another context it could not be
        body, field = self.request.body.decode(), self.get_argument("field", "")
        self.finish(told | {"body": body, "field": field})

    post = get


class First(web.RequestHandler):
    def get(self, *path_args: str) -> None:
        self.finish({"by": "first"})


class FailingTwice(web.RequestHandler):
    EAGER_START = True

    async def get(self) -> None:
        raise ZeroDivisionError

    def send_error(self, *args: object, **kwargs: object) -> None:
        raise KeyError


RULES: list = [("/", Eager), ("/fails", FailingTwice)]


@pytest.fixture(params=[http1.HTTPServer, httpserver.HTTPServer], ids=["ours", "Tornado's"])
def site(request: pytest.FixtureRequest, serve: Serve) -> Served:
    return serve(request.param, http1.Application(RULES))


async def test_a_handler_runs_in_a_context_of_its_own_and_get_at_once(site: Served) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    for method, target, waits, body, told in (
        ("GET", "/", "0", "", {}),
        ("GET", "/", "5", "", {}),
        ("GET", "/", "1", "x" * 300_000, {"body": ""}),  # a body of GET means nothing
        ("GET", "/?field=b", "1", "", {"field": "b"}),
        ("POST", "/", "1", "field=a", {"by": "Tornado", "field": "a"}),
    ):
        lines = (form, f"X-Waits: {waits}", f"Content-Length: {len(body)}")
        asked = get(target, *lines, method=method) + body.encode()
        expected = {"by": "eager", "saw": ["nothing", waits], "body": body, "field": ""} | told
        for answer in await asyncio.gather(*(site.ask(asked) for _ in range(5))):
            assert (answer.status, answer.json) == (200, expected)


async def test_an_error_in_an_error_is_logged_bad_ones_refused(
    site: Served, caplog: Caplog
) -> None:
    (await site.connect()).send(get("/fails"))
    said = "Exception in exception handler"  # as with Tornado, nobody answers
    await eventually(lambda: said in [record.getMessage() for record in caplog.records])
    assert (await site.ask(GET)).status == 200
    assert (await site.ask(get(method="HEAD"), "HEAD")).status == 405
    for _ in range(2):
        assert (await site.ask(get("/", "Host: b"))).status == 400


async def test_first_matching_rule_answers_and_those_for_a_host_come_first(serve: Serve) -> None:
    rows: list[tuple[list, str, str]] = [
        ([("/a", Eager), ("/a", First)], "/a", "eager"),
        ([("/a", First), ("/a", Eager)], "/a", "first"),
        ([("/.*", First), ("/a", Eager)], "/a", "first"),
        ([("/b.*", First), ("/a", Eager)], "/a", "eager"),
        ([(AnyMatches(), First), ("/a", Eager)], "/a", "first"),
        ([("/a.b", Eager)], "/a.b", "Tornado"),
        ([("/a.b", Eager)], "/a-b", "Tornado"),
        ([("/(a)?", First), ("/", Eager)], "/", "first"),
    ]
    for rules, path, by in rows:
        app = http1.Application(rules)
        assert (await serve(app=app).ask(get(path))).json["by"] == by, rules
    app = http1.Application(RULES)
    app.add_handlers(r"example\.org", [("/", First)])
    site = serve(app=app)
    asked = GET.replace(b"Host: a", b"Host: example.org")
    assert [(await site.ask(one)).json["by"] for one in (asked, GET)] == ["first", "Tornado"]


async def test_a_clock_set_back_makes_no_time_negative(serve: Serve, monkeypatch: Patch) -> None:
    taken: list[float] = []

    class Handler(http1.RequestHandler):
        EAGER_START = True

        async def get(self) -> None:
            monkeypatch.setattr(time, "time", lambda before=time.time: before() - 3600)

    app = http1.Application(
        [("/", Handler)], log_function=lambda one: taken.append(one.request.request_time())
    )
    for target in ("/", "/?query"):
        await serve(app=app).ask(get(target))
    assert len(taken) == 2
    assert all(0 <= one < 60 for one in taken)


def test_where_tornado_is_instrumented_no_handler_begins_at_once(monkeypatch: Patch) -> None:
    assert http1.Application(RULES).eager
    instrumented = functools.wraps(web.RequestHandler.__init__)(lambda *args: None)
    monkeypatch.setattr(web.RequestHandler, "__init__", instrumented)
    assert not http1.Application(RULES).eager
