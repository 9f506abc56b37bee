"""``GET /live`` and ``GET /live/events``: who watches sees what is counted, and costs nobody."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock, patch

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.testing import bind_unused_port

from config import Settings
from counter import Visits
from http1 import HTTPServer
from http1.stream import MAX_UNSENT
from replicas import HISTORIES, Figures, Reader, Record, Snapshot
from server import make_app
from tests.support import ROOT, Caplog, Patch
from tests.support.counting import permit, replica, telling
from tests.support.processes import SOON, seconds_to_stop
from tests.support.program import Start
from tests.support.raw_http import many_descriptors
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within
from watch import broadcast
from watch.broadcast import Broadcast

pytestmark = pytest.mark.gen_test

#: More than a client that does not read is sent.
CHUNK = b":" + b"x" * 100_000 + b"\n\n"


class Stream(NamedTuple):
    """One who watches: a connection on which the events are read."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: str

    async def fields(self) -> dict[str, str]:
        """Return the fields of what comes next, to the empty line that ends it."""
        block = await self.reader.readuntil(b"\n\n")
        return dict(re.findall(r"^(\w+): (.*)", block.decode(), re.MULTILINE))

    async def event(self, kind: str | None = None) -> dict:
        """Return the data of the next event of a kind; others, and comments, are passed over."""
        while "data" not in (found := await self.fields()) or found.get("event") != kind:
            pass
        return json.loads(found["data"])


async def watch(port: int, query: str = "") -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /live/events{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    return Stream(reader, writer, head)


class Served(NamedTuple):
    port: int
    server: HTTPServer
    live: Broadcast
    streams: list[Stream]

    async def get(self, path: str, method: str = "GET") -> HTTPResponse:
        url = f"http://127.0.0.1:{self.port}{path}"
        return await AsyncHTTPClient().fetch(url, method=method, raise_error=False)

    async def watch(self, query: str = "") -> Stream:
        self.streams.append(await watch(self.port, query))
        return self.streams[-1]


@contextlib.asynccontextmanager
async def serving(valkey: Valkey, **limits: float) -> AsyncIterator[Served]:
    visits = Visits(valkey.url, timeout=PATIENCE, beside=Figures("web-1"))
    told = Broadcast(Reader(visits.new_connector()))
    server = HTTPServer(make_app(Settings(access_log=False), visits, told), **limits)
    listening, port = bind_unused_port()
    server.add_socket(listening)
    served = Served(port, server, told, [])
    try:
        yield served
    finally:
        await told.close()
        server.stop()
        await server.close_all_connections()
        await visits.close()
        for one in served.streams:
            one.writer.close()


@pytest.fixture(autouse=True)
def second(monkeypatch: Patch) -> float:
    """Let a second be a tenth, and return what it is where it is the promise."""
    real = broadcast.EVERY
    monkeypatch.setattr(broadcast, "EVERY", real / 10)
    return real


def shown(history: dict[str, Any]) -> dict[str, int]:
    return dict(sum((Counter(visits) for _, visits in history["moments"]), Counter()))


@pytest.mark.parametrize(
    "last", ["5m", *(pytest.param(one, marks=pytest.mark.slow) for one in HISTORIES if one != "5m")]
)
async def test_all_is_told_and_then_what_is_new_each_second(
    valkey: Valkey, last: str, second: float, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(broadcast, "EVERY", second)
    async with serving(valkey) as served, replica(valkey.url, "web-2", version="1.1") as other:
        await asyncio.gather(*(served.get("/") for _ in range(3)))
        await asyncio.gather(*(other.count() for _ in range(5)))
        begun = time.time()
        stream = await served.watch(f"?last={last}")
        assert {
            "Content-Type: text/event-stream",
            "Cache-Control: no-store, no-transform",
            "X-Accel-Buffering: no",
        } <= {*stream.head.splitlines()}
        retry, past, marks, message = [await stream.fields() for _ in range(4)]
        assert ([*retry], 1000 <= int(retry["retry"]) <= 2000) == (["retry"], True)
        assert (past["event"], marks["event"]) == ("history", "marks")
        history, event = (json.loads(one["data"]) for one in (past, message))
        assert (history["last"], history["step"]) == (last, HISTORIES[last].step)
        assert all(second % history["step"] == 0 for second, _ in history["moments"])
        assert shown(history) == {"": 3, "1.1": 5}
        assert event["time"] == history["time"], "what is in the one is not counted by the other"
        assert message.keys() == {"id", "data"}
        assert int(message["id"]) == round(event["time"] * 1000)
        assert begun - 1 < event["time"] < time.time() + 1
        assert (event["redis"], event["total"]) == ("up", 8)
        told = {one["hostname"]: one["visits"] for one in event["replicas"]}
        assert told == {"web-1": 3, "web-2": 5}
        assert all(0 <= one["seen"] < time.time() - begun + 1 for one in event["replicas"])

        await asyncio.gather(served.get("/"), *(other.count() for _ in range(2)))
        since: Counter[str] = Counter()
        for number in itertools.count(1):
            event = await within(1, stream.event())
            assert event["time"] >= begun + number - 0.1
            since.update(event["counted"])
            if number > 1 and since.total() >= 3:
                break
        assert since == {"": 1, "1.1": 2}

        later = await served.watch(f"?last={last}")  # as who comes back
        assert shown(await later.event("history")) == {"": 4, "1.1": 7}
        assert (await later.event())["total"] == 11


async def test_marks_are_told_when_they_change(valkey: Valkey, monkeypatch: Patch) -> None:
    monkeypatch.setattr("replicas.telling.GOODBYE_TIMEOUT", PATIENCE)
    async with serving(valkey) as served:
        await served.get("/")
        stream = await served.watch()
        told = await stream.event("marks")
        assert told["versions"] == [""]
        assert [(one["kind"], one["hostname"]) for one in told["marks"]] == [("came", "web-1")]
        async with replica(valkey.url, "web-2", version="1.1") as other:
            await other.count()
            told = await stream.event("marks")
            assert told["versions"] == ["", "1.1"]
            kinds = [(one["kind"], one["version"]) for one in told["marks"][1:]]
            assert sorted(kinds) == [("came", "1.1"), ("version", "1.1")]
            async with telling(other, is_draining=lambda: True):
                while (await stream.event())["replicas"][1].get("state") != "draining":
                    pass
        *_, gone = (await stream.event("marks"))["marks"]
        assert gone == {"time": gone["time"], "kind": "gone", "hostname": "web-2"}
        later = [await stream.fields() for _ in range(5)]
        assert not any("event" in one for one in later), "only when they change"


async def test_head_begins_no_stream_and_another_last_is_refused(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        for path in ("/live", "/live/events"):
            for last in ("5", "2h", "5m%0d%0a", "<b>"):
                answer = await served.get(f"{path}?last={last}")
                said = b"400 Bad Request: last is one of 5m, 1h, 1d\n"
                assert (answer.code, answer.body) == (400, said)
            for last in HISTORIES:
                head = await served.get(f"{path}?last={last}", method="HEAD")
                assert (head.code, head.body) == (200, b"")
        assert head.headers["Content-Type"] == "text/event-stream"
        assert not served.live.watchers
        assert (await served.get("/live/events", method="DELETE")).code == 405


async def test_redis_is_asked_once_a_second_for_all_and_not_for_nobody(valkey: Valkey) -> None:
    def looks() -> int:
        return valkey.commands("zrevrange")

    async with serving(valkey) as served:
        begin = time.monotonic()
        streams = [await served.watch() for _ in range(20)]
        for _ in range(5):
            await asyncio.gather(*(one.event() for one in streams))
            extra = await served.watch()  # who comes and goes costs no look either
            await extra.event()
            extra.writer.close()
        assert looks() <= (time.monotonic() - begin) / broadcast.EVERY + 1
        assert len(served.live.watchers) >= 20
        for one in streams:
            one.writer.close()
        await eventually(lambda: not served.live.watchers)
        await eventually(lambda: len(valkey.client.client_list()) == 1)
        before = looks()
        await asyncio.sleep(3 * broadcast.EVERY)  # none may come
        assert looks() == before


async def test_a_thousand_watch_while_pages_are_served(valkey: Valkey, program: Start) -> None:
    async def until_20(one: Stream) -> None:
        while (await one.event())["total"] < 20:
            pass

    with many_descriptors() as most:
        assert most >= 2500, "a thousand sockets need more descriptors: ulimit -n 4096"
        patient = f"--redis-timeout={PATIENCE}"
        server = program(f"--redis-url={valkey.url}", patient, "--access-log=false")
        server.wait_for(b"counter on", PATIENCE)
        streams = [await watch(server.port) for _ in range(1000)]
        await asyncio.gather(*(one.event() for one in streams))
        numbers = await asyncio.to_thread(lambda: [server.visits() for _ in range(20)])
        assert numbers == list(range(1, 21))
        await asyncio.gather(*map(until_20, streams))
        assert await asyncio.to_thread(seconds_to_stop, server) < SOON
        rests = await asyncio.gather(*(one.reader.read() for one in streams))
        assert all(rest.endswith(b"0\r\n\r\n") for rest in rests)
        for one in streams:
            one.writer.close()
    assert b"not finished" not in server.log


async def lagging(served: Served) -> tuple[Any, int]:
    """Return one who watches and does not read, and the most that has waited for it."""
    await served.watch()
    await eventually(lambda: served.live.watchers)
    [watcher] = served.live.watchers
    transport, held = watcher.request.connection.stream.transport, 0  # type: ignore[attr-defined]
    for _ in range(200):  # as after some minutes
        watcher.send(CHUNK)
        held = max(held, transport.get_write_buffer_size())
        await asyncio.sleep(0)
    return watcher, held


async def test_who_does_not_read_takes_no_memory_and_is_dropped_in_time(valkey: Valkey) -> None:
    async with serving(valkey, idle_connection_timeout=1.0) as served:
        watcher, held = await lagging(served)
        assert MAX_UNSENT < held < MAX_UNSENT + len(CHUNK) + 4096
        other = await served.watch()
        for _ in range(20):  # who reads stays, for longer than the limit, too
            await other.event()
        await eventually(lambda: watcher not in served.live.watchers)
        assert len(served.live.watchers) == 1


async def test_streams_end_at_once_though_one_does_not_read(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        watcher, _ = await lagging(served)
        assert not watcher.send(b":\n\n")
        reads = await served.watch()
        await reads.event()
        await served.live.close()
        new = await served.watch()
        assert (await new.fields()).keys() == {"retry"}
        assert await new.reader.readline() == b"\r\n"
        assert await new.reader.readline() == b"0\r\n"
        assert not served.live.watchers
        draining = asyncio.create_task(served.server.drain(60))
        assert (await within(1, reads.reader.read())).endswith(b"0\r\n\r\n")
        await within(1, draining)


@pytest.mark.parametrize("hangs", [False, True])
async def test_events_tell_that_redis_is_away_or_hangs_and_is_back(
    valkey: Valkey, monkeypatch: Patch, caplog: Caplog, hangs: bool
) -> None:
    async with serving(valkey) as served:
        await served.get("/")
        stream = await served.watch()
        await stream.event()
        await asyncio.to_thread(valkey.hang if hangs else valkey.kill)
        if hangs:
            monkeypatch.setattr("replicas.link.TIMEOUT", 0.5)
        while hangs and await stream.fields():
            pass
        while (event := await stream.event())["redis"] == "up":
            pass
        assert event.keys() == {"time", "redis", "reason"}
        assert "/live cannot show everything" not in caplog.text, "the counter says why"
        assert (await within(0, served.get("/healthz"))).code == 200
        await asyncio.to_thread(valkey.go_on if hangs else valkey.start)
        while (event := await stream.event())["redis"] != "up":  # it may be loading
            pass
        assert event["total"] == 1


@pytest.mark.parametrize("command", ["zrevrange", "hmget", "hgetall", "get", "time"])
async def test_what_may_not_be_read_is_told(valkey: Valkey, caplog: Caplog, command: str) -> None:
    has_figures = command not in ("get", "time")  # without the counter or the time there are none
    async with serving(valkey) as served:
        await served.get("/")
        permit(valkey.client, f"-{command}")
        stream = await served.watch()
        for _ in range(3):
            event = await stream.event()
            assert event["redis"] == ("up" if has_figures else "refused"), event
            refused = event["refused"][0] if has_figures else event["reason"]
            assert refused.startswith(f"{command.upper()}: ")
            assert f"no permissions to run the '{command}' command" in refused
        assert [one.getMessage() for one in caplog.records if "Redis refuses" in one.msg] == [
            f"/live cannot show everything, as Redis refuses {refused}"
        ]
        permit(valkey.client, f"+{command}")
        while (event := await stream.event())["redis"] != "up" or "refused" in event:
            pass
        assert event["total"] == 1
        if command == "hgetall":
            assert shown(await stream.event("history")) == {"": 1}


async def sent_by(
    *answers: Snapshot | Exception, lags_at: int | None = None
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Return what somebody is sent while these are the figures, and the data of its events.

    :arg lags_at: how much was sent when it is not all read.
    """
    left, sent = [*answers], list[bytes]()

    async def read(histories: Collection[str]) -> Snapshot:
        if isinstance(answer := left.pop(0), Exception):
            raise answer
        return replace(answer, moments={last: [] for last in histories})

    def send(chunk: bytes) -> bool:
        sent.append(chunk)
        if not left:
            watched.remove(listener)
        return len(sent) != lags_at

    listener: Any = Mock(send=send)
    watched = Broadcast(Mock(read=read, reason=str))
    with patch.object(broadcast, "EVERY", 0.01):
        watched.add(listener, "5m")
        await eventually(lambda: not watched.watchers)
        await watched.close()
    return sent, [json.loads(one) for one in re.findall(rb"data: (.*)", b"".join(sent))]


async def test_times_go_on_by_the_clock_of_redis_while_it_is_away() -> None:
    _, events = await sent_by(Snapshot(1000.0, 5), *[OSError("gone")] * 5)
    told = [
        (one["redis"], 1000 <= one["time"] < 1000 + PATIENCE) for one in events if "redis" in one
    ]
    assert told == [("up", True), *[("down", True)] * 5]


async def test_counted_is_what_was_shown_since_the_last_event() -> None:
    def seen(time: float, *refused: str, **visits: int) -> Snapshot:
        records = [Record(id, "web", number, time, id) for id, number in visits.items()]
        return Snapshot(time, 0, records, refused=refused)

    _, events = await sent_by(
        seen(100, a=53),
        seen(101, a=54, b=2),
        seen(102, a=51),  # some were shown to nobody; one is not to be seen
        seen(103, a=55, b=3),
        seen(110, a=99, b=9),  # Redis was away
        seen(111, a=99, b=9),
        seen(112, "HMGET: not you"),
        seen(113, "HMGET: not you"),
        seen(114, a=99, b=10),
        seen(115, a=99, b=12),
    )
    counted = [one.get("counted", "-") for one in events if "redis" in one]
    assert counted == [
        *("-", {"a": 1, "b": 2}, {}, {"a": 1, "b": 1}),
        *("-", {}, "-", {}, "-", {"b": 2}),
    ]
    histories = [one["time"] for one in events if "moments" in one]
    assert histories == [100, 111, 113, 115]


async def test_who_has_not_read_is_told_the_history_again() -> None:
    sent, _ = await sent_by(*(Snapshot(100 + i, 0) for i in range(5)), lags_at=3)
    is_history = [b"event: history" in one for one in sent]
    assert is_history == [False, True, False, True, False, False]


async def test_the_page_is_all_of_this_server_and_counts_nothing(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        answer, head = [await served.get("/live", method) for method in ("GET", "HEAD")]
        page = answer.body.decode()
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert not re.search(r"<style|style=|<script>|\son\w+=|https?:", page)
        length = answer.headers["Content-Length"]
        assert (head.code, head.body, head.headers["Content-Length"]) == (200, b"", length)

        types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
        paths = set(re.findall(r'"(?:\./)?(static/[^"]+\?v=[^"]+)"', page))
        assert len(paths) == len(os.listdir(ROOT / "static"))
        for path in paths:
            file = await served.get(f"/{path}")
            name, version = path.removeprefix("static/").split("?v=")
            assert (file.code, file.body) == (200, (ROOT / "static" / name).read_bytes())
            assert file.headers["Content-Type"] == types[Path(name).suffix]
            assert int(file.headers["Cache-Control"].removeprefix("max-age=")) > 10**7
            for other in ("", "?v=", f"?v={version}0"):
                kept = (await served.get(f"/static/{name}{other}")).headers["Cache-Control"]
                assert kept == "no-store", "another version's file is not kept under its name"

        for path in (
            *("/static", "/static/x", "/static/..%2fserver.py", "/static/%2e%2e/"),
            *("/static/live.js/", "/static//live.js", "/live/", "/live/events/"),
        ):
            assert (await served.get(path)).code == 404
        assert (await (await served.watch()).event())["total"] == 0
        assert valkey.client.dbsize() == 0
