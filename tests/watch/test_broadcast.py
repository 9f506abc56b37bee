"""``GET /live`` and ``GET /live/events``: who watches sees what is counted, and costs nobody."""

import asyncio
import contextlib
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.testing import bind_unused_port

from config import Settings
from counter import HISTORY, Visits, statistics
from counter.statistics import Replica, Snapshot
from http1 import HTTPServer
from server import make_app
from tests.support import ROOT
from tests.support.processes import seconds_to_stop
from tests.support.program import Program
from tests.support.raw_http import many_descriptors
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, within
from watch import broadcast
from watch.broadcast import Broadcast

Start = Callable[..., Program]


class Stream:
    """One who watches: a connection on which the events are read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = ""

    async def block(self) -> str:
        """Return what comes next, to the empty line that ends it."""
        if not self.head:
            self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            assert self.head.startswith("HTTP/1.1 200 OK\r\n")
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2].decode()

    async def event(self, kind: str | None = None) -> dict:
        """Return the data of the next event of a kind; others, and comments, are passed over."""
        while True:
            lines = (await self.block()).splitlines()
            found = dict(line.split(": ", 1) for line in lines if line and line != ":")
            if "data" in found and found.get("event") == kind:
                return json.loads(found["data"])

    async def rest(self) -> bytes:
        return await self.reader.read()

    def close(self) -> None:
        self.writer.close()


async def watch(port: int, method: str = "GET", **headers: str) -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    request = f"{method} /live/events HTTP/1.1\r\nHost: a\r\n{''.join(lines)}\r\n"
    writer.write(request.encode())
    return Stream(reader, writer)


class Served:
    """The application, in the test's own loop."""

    def __init__(self, port: int, server: HTTPServer, live: Broadcast, visits: Visits) -> None:
        self.port = port
        self.server = server
        self.live = live
        self.visits = visits

    async def get(self, path: str, method: str = "GET") -> HTTPResponse:
        url = f"http://127.0.0.1:{self.port}{path}"
        return await AsyncHTTPClient().fetch(url, method=method, raise_error=False)


@contextlib.asynccontextmanager
async def serving(valkey: Valkey, **limits: float) -> AsyncIterator[Served]:
    visits = Visits(valkey.url, hostname="web-1", timeout=PATIENCE)
    told = Broadcast(visits.reader())
    server = HTTPServer(make_app(Settings(access_log=False), visits, told), **limits)
    listening, port = bind_unused_port()
    server.add_socket(listening)
    try:
        yield Served(port, server, told, visits)
    finally:
        await told.close()
        server.stop()
        await server.close_all_connections()
        await visits.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second be a tenth, where it is not the promise."""
    monkeypatch.setattr(broadcast, "EVERY", broadcast.EVERY / 10)


# What is told.


@pytest.mark.gen_test
async def test_each_second_an_event_tells_what_is_counted(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        begun = time.time()
        await asyncio.gather(*(served.get("/") for _ in range(3)))
        watched = time.time()
        stream = await watch(served.port)
        first = await stream.block()
        retry = re.fullmatch(r"retry: (\d+)\n\n", first)
        assert retry
        assert 1000 <= int(retry[1]) <= 2000
        for header in (
            "Content-Type: text/event-stream",
            "Cache-Control: no-store, no-transform",
            "X-Accel-Buffering: no",
        ):
            assert f"\r\n{header}\r\n" in stream.head

        # Of each second what the counter held then; a visit that comes alone may be the first.
        assert 1 <= (await stream.event("history"))["totals"][0][1] <= 3
        block = await stream.block()
        event = json.loads(block.split("data: ")[1])
        assert block.startswith(f"id: {round(event['time'] * 1000)}\ndata: ")
        assert begun - 1 < event["time"] < time.time() + 1
        assert event["redis"] == "up"
        assert event["total"] == 3
        [replica] = event["replicas"]
        assert (replica["hostname"], replica["visits"]) == ("web-1", 3)
        assert 0 <= replica["seen"] < time.time() - begun + 1

        await served.get("/")
        for _ in range(2):
            event = await within(1, stream.event())
        assert event["time"] >= watched + 2 - 0.1
        while event["total"] == 3:  # on a busy machine the visit may have been the slower one
            event = await stream.event()
        assert event["total"] == 4
        stream.close()


@pytest.mark.gen_test
async def test_events_tell_which_version_a_replica_runs(valkey: Valkey) -> None:
    for hostname, version in (("web-1", "blue"), ("web-2", "green"), ("web-3", None)):
        visits = Visits(valkey.url, hostname=hostname, version=version)
        assert await visits.count()
        await visits.close()
    async with serving(valkey) as served:
        stream = await watch(served.port)
        replicas = (await stream.event())["replicas"]
        assert [one.get("version") for one in replicas] == ["blue", "green", None]
        stream.close()


@pytest.mark.gen_test
async def test_events_tell_the_labels_of_replicas_that_have_some(valkey: Valkey) -> None:
    labels = {"zone": "eu-1", "rule": "a=b", "place": "Köln <b>"}
    for hostname, own in (("web-1", labels), ("web-2", None)):
        visits = Visits(valkey.url, hostname=hostname, labels=own)
        assert await visits.count()
        await visits.close()
    async with serving(valkey) as served:
        stream = await watch(served.port)
        replicas = (await stream.event())["replicas"]
        assert [one.get("labels") for one in replicas] == [labels, None]
        stream.close()


@pytest.mark.gen_test
async def test_head_answers_gets_headers_and_ends(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        head = await served.get("/live/events", method="HEAD")
        assert (head.code, head.body) == (200, b"")
        assert head.headers["Content-Type"] == "text/event-stream"
        assert not served.live.watchers
        assert (await served.get("/live/events", method="DELETE")).code == 405


@pytest.mark.gen_test
@pytest.mark.usefixtures("hurried")
async def test_watching_counts_no_visit(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        page = (await served.get("/live")).body.decode()
        files = [f"/{path}" for path in re.findall(r'(?:href|src)="(static/[^"]+)"', page)]
        assert len(files) == len(os.listdir(ROOT / "static"))
        for path in ("/live", *files, "/favicon.ico"):
            for method in ("GET", "HEAD"):
                await served.get(path, method)
        stream = await watch(served.port)
        assert (await stream.event())["total"] == 0
        assert (await stream.event())["total"] == 0
        stream.close()
        assert valkey.counter() == 0
        assert valkey.client.dbsize() == 0


@pytest.mark.gen_test
@pytest.mark.usefixtures("hurried")
async def test_who_comes_later_is_told_what_others_saw_and_who_comes_back_the_rest(
    valkey: Valkey,
) -> None:
    async with serving(valkey) as served:
        first = await watch(served.port)
        seen = [await first.event() for _ in range(3)]
        later = await watch(served.port)
        totals = (await later.event("history"))["totals"]
        assert totals[:3] == [[one["time"], one["total"]] for one in seen]
        assert (await later.event())["total"] == 0, "at once, and not with the next look"

        last = str(round(seen[1]["time"] * 1000))
        back = await watch(served.port, Last_Event_ID=last)
        assert (await back.event("history"))["totals"][0] == [seen[2]["time"], 0]
        for nonsense in ("", "-1", "x", "9" * 400):
            odd = await watch(served.port, Last_Event_ID=nonsense)
            assert (await odd.event("history"))["totals"][0] == totals[0]
            odd.close()
        for one in (first, later, back):
            one.close()


@pytest.mark.gen_test
async def test_who_comes_first_is_told_what_was_counted_while_nobody_watched(
    valkey: Valkey,
) -> None:
    now = int(time.time())
    for second, total in ((now - 200, 7), (now - 10, 11)):
        valkey.client.hset("{counter}:minutes", str(second % HISTORY), f"{second} {total} 1")
    valkey.client.set("counter", 11)
    async with serving(valkey) as served:
        first, second = await watch(served.port), await watch(served.port)
        for one in (first, second):
            totals = (await one.event("history"))["totals"]
            assert totals[:3] == [[now - 200, 7], [now - 199, 10], [now - 10, 11]]
            assert (await one.event())["total"] == 11
        for one in (first, second):
            one.close()
        await eventually(lambda: not served.live.watchers)
        back = await watch(served.port, Last_Event_ID=str((now - 100) * 1000))
        assert (await back.event("history"))["totals"][0] == [now - 10, 11]
        back.close()


# What it costs.


@pytest.mark.gen_test
@pytest.mark.usefixtures("hurried")
async def test_redis_is_asked_once_a_second_for_however_many_and_not_at_all_for_nobody(
    valkey: Valkey,
) -> None:
    def looks() -> int:
        return valkey.commands("zrevrange")

    async with serving(valkey) as served:
        begin = time.monotonic()
        streams = [await watch(served.port) for _ in range(20)]
        for _ in range(5):
            await asyncio.gather(*(one.event() for one in streams))
            extra = await watch(served.port)  # who comes and goes costs no look either
            await extra.event()
            extra.close()
        assert looks() <= (time.monotonic() - begin) / broadcast.EVERY + 1
        assert len(served.live.watchers) >= 20
        for one in streams:
            one.close()
        await eventually(lambda: not served.live.watchers)
        await eventually(lambda: len(valkey.client.client_list()) == 1)
        before = looks()
        await asyncio.sleep(3 * broadcast.EVERY)  # none may come
        assert looks() == before


def test_a_thousand_watch_while_pages_are_served(valkey: Valkey, counting: Start) -> None:
    async def main(server: Program) -> None:
        streams = [await watch(server.port) for _ in range(1000)]
        await asyncio.gather(*(one.event() for one in streams))
        numbers = await asyncio.to_thread(lambda: [server.visits() for _ in range(20)])
        assert numbers == list(range(1, 21))

        async def until_20(one: Stream) -> None:
            while (await one.event())["total"] < 20:
                pass

        await asyncio.gather(*(until_20(one) for one in streams))
        assert await asyncio.to_thread(seconds_to_stop, server) < 1
        rests = await asyncio.gather(*(one.rest() for one in streams))
        assert all(rest.endswith(b"0\r\n\r\n") for rest in rests)
        for one in streams:
            one.close()

    with many_descriptors() as most:
        assert most >= 2500, "a thousand sockets need more descriptors: ulimit -n 4096"
        patient = f"--redis-timeout={PATIENCE}"
        server = counting(f"--redis-url={valkey.url}", patient, "--access-log=false")
        asyncio.run(main(server))
    assert b"not finished" not in server.log


@pytest.mark.gen_test
async def test_who_does_not_read_takes_no_memory_and_is_dropped_in_time(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "EVERY", 0.01)
    async with serving(valkey, idle_connection_timeout=1.0) as served:
        # Large events, so that a small buffer is full before long.
        for i in range(200):
            name = f"web-{i}-{'x' * 100}"
            valkey.client.zadd("{counter}:processes", {name: time.time()})
            key = f"{{counter}}:process:{name}"
            valkey.client.hset(key, mapping={"hostname": name, "visits": i})
            valkey.client.expire(key, 1000)
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", served.port))
        stuck.sendall(b"GET /live/events HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: served.live.watchers)
        [watcher] = served.live.watchers
        connection = watcher.request.connection.stream  # type: ignore[attr-defined]
        held = 0

        def is_dropped() -> bool:
            nonlocal held
            if connection._transport is not None:
                held = max(held, connection._transport.get_write_buffer_size())
            return watcher not in served.live.watchers

        other = await watch(served.port)
        await other.event()

        async def read_on() -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    await other.event()

        reading = asyncio.create_task(read_on())
        await eventually(is_dropped)
        assert len(served.live.watchers) == 1, "who reads stays, for longer than the limit too"
        size = len(served.live._event)
        assert 64 * 1024 < held < 64 * 1024 + 2 * size + 4096
        reading.cancel()
        stuck.close()
        other.close()


# The end, and faults.


@pytest.mark.gen_test
async def test_streams_end_at_once_though_who_watches_does_not_read(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(valkey) as served:
        reads, lags = await watch(served.port), await watch(served.port)
        await reads.event()
        await eventually(lambda: len(served.live.watchers) == 2)
        for watcher in served.live.watchers:
            # As after some minutes of not reading; the other one reads.
            await lags_behind(watcher, lags.writer.get_extra_info("sockname"))
        await served.live.close()
        draining = asyncio.create_task(served.server.drain(60))
        rest = await within(1, reads.rest())
        assert rest.endswith(b"0\r\n\r\n")
        await within(1, draining)
        for one in (reads, lags):
            one.close()


async def lags_behind(watcher: object, address: tuple[str, int]) -> None:
    """Send to one watcher until no more is taken."""
    request = watcher.request  # type: ignore[attr-defined]
    if request.connection.context.address[1] != address[1]:
        return
    for _ in range(200):
        watcher.send(b":" + b"x" * 100_000 + b"\n\n")  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    assert not watcher._read.done()  # type: ignore[attr-defined]


@pytest.mark.gen_test
async def test_a_server_that_stops_ends_a_new_stream_so_that_the_page_comes_back(
    valkey: Valkey,
) -> None:
    async with serving(valkey) as served:
        await served.live.close()
        stream = await watch(served.port)
        assert (await stream.block()).startswith("retry: ")
        assert await stream.reader.readline() == b"0\r\n"
        assert not served.live.watchers
        stream.close()


@pytest.mark.gen_test
@pytest.mark.usefixtures("hurried")
async def test_without_redis_events_say_so_and_with_it_go_on(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        await served.get("/")
        stream = await watch(served.port)
        before = await stream.event()
        await asyncio.to_thread(valkey.kill)
        while (event := await stream.event())["redis"] == "up":
            pass
        assert event.keys() == {"time", "redis", "reason"}
        assert before["time"] < event["time"] < before["time"] + PATIENCE
        await asyncio.to_thread(valkey.start)
        while (event := await stream.event())["redis"] == "down":
            pass
        assert event["total"] == 1
        stream.close()


REFUSED = {
    "the processes": ("zrevrange", "up"),
    "what one of them keeps": ("hmget", "up"),
    "when it was seen": ("pttl", "up"),
    "the last minutes": ("hgetall", "up"),
    "the counter": ("get", "refused"),
    "the time": ("time", "refused"),
}


@pytest.mark.gen_test
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("what", REFUSED)
async def test_what_may_not_be_read_is_said_in_each_event_and_once_in_the_log(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    command, state = REFUSED[what]
    async with serving(valkey) as served:
        await served.get("/")
        valkey.client.acl_setuser("default", enabled=True, commands=[f"-{command}"])
        stream = await watch(served.port)
        events = [await stream.event() for _ in range(3)]
        for event in events:
            assert event["redis"] == state
            refused = event["refused"][0] if state == "up" else event["reason"]
            assert refused.startswith(f"{command.upper()}: ")
            assert f"no permissions to run the '{command}' command" in refused
        assert [one.getMessage() for one in caplog.records if "Redis refuses" in one.msg] == [
            f"not all can be shown on the live page, as Redis refuses {refused}"
        ]
        valkey.client.acl_setuser("default", enabled=True, commands=[f"+{command}"])
        while (event := await stream.event())["redis"] != "up" or "refused" in event:
            pass
        assert event["total"] == 1
        stream.close()


@pytest.mark.gen_test
@pytest.mark.usefixtures("hurried")
async def test_while_redis_hangs_comments_come_and_pages_are_served(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(valkey) as served:
        stream = await watch(served.port)
        await stream.event()
        valkey.hang()
        monkeypatch.setattr(statistics, "READ_TIMEOUT", 0.5)
        while await stream.block() != ":\n\n":
            pass
        while (await stream.event())["redis"] == "up":
            pass
        assert (await within(0, served.get("/healthz"))).code == 200
        valkey.go_on()
        while (await stream.event())["redis"] == "down":
            pass
        stream.close()


class Slow:
    """Reads figures that take as long as a test wants."""

    def __init__(self) -> None:
        self.answers: list[Snapshot | Exception] = []

    def reason(self, error: Exception) -> str:
        return str(error)

    async def history(self) -> list[tuple[int, int]]:
        return []

    async def read(self) -> Snapshot:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


@pytest.mark.gen_test
async def test_times_go_on_by_the_clock_of_redis_while_it_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broadcast, "EVERY", 0.01)
    reader = Slow()
    reader.answers = [Snapshot(1000.0, 5, [Replica("a", 5, 0.0)]), *[OSError("gone")] * 5]
    told: list[bytes] = []

    class Listener:
        def send(self, chunk: bytes) -> None:
            told.append(chunk)
            if not reader.answers:
                watched.remove(self)

        def end(self) -> None:
            pass

    watched = Broadcast(reader)  # type: ignore[arg-type]
    watched.add(Listener())
    await eventually(lambda: not watched.watchers)
    events = [json.loads(one.split(b"data: ")[1]) for one in told if b"data: " in one]
    assert [one["redis"] for one in events] == ["up", *["down"] * 5]
    assert all(1000 <= one["time"] < 1000 + PATIENCE for one in events)
    await watched.close()


# The page, and what it is made of.


@pytest.mark.gen_test
async def test_the_page_and_its_files_are_this_servers_alone(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        answer = await served.get("/live")
        page = answer.body.decode()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert not re.search(r"<style|style=|<script>|\son\w+=|https?:", page)
        head = await served.get("/live", method="HEAD")
        assert (head.code, head.body) == (200, b"")
        assert head.headers["Content-Length"] == answer.headers["Content-Length"]

        types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
        for path in re.findall(r'(?:href|src)="(static/[^"]+)"', page):
            file = await served.get(f"/{path}")
            assert file.code == 200
            name, version = path.removeprefix("static/").split("?v=")
            assert file.body == (ROOT / "static" / name).read_bytes()
            assert file.headers["Content-Type"] == types[Path(name).suffix]
            assert file.headers["X-Content-Type-Options"] == "nosniff"
            assert file.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert int(file.headers["Cache-Control"].removeprefix("max-age=")) > 10**7
            assert "Server" not in file.headers
            for other in ("", "?v=", f"?v={version}0"):
                kept = (await served.get(f"/static/{name}{other}")).headers["Cache-Control"]
                assert kept == "no-store", "another version's file is not kept under its name"


@pytest.mark.gen_test
async def test_other_paths_of_the_folder_are_not_found(valkey: Valkey) -> None:
    async with serving(valkey) as served:
        for path in (
            *("/static", "/static/", "/static/x", "/static/..%2fserver.py", "/static/%2e%2e/"),
            *("/static/live.js/", "/static//live.js", "/live/", "/live/events/"),
        ):
            assert (await served.get(path)).code == 404


def test_the_page_is_found_from_any_working_directory(
    program: Start, valkey: Valkey, tmp_path: Path
) -> None:
    server = program(f"--redis-url={valkey.url}", cwd=tmp_path)
    status, page = server.get("/live")
    assert status == 200
    for path in re.findall(r'(?:href|src)="(static/[^"]+)"', page):
        assert server.get(f"/{path}")[0] == 200
    assert os.listdir(tmp_path) == []
