"""Redis hangs, dies, comes late and comes back: no page waits for long, and counting goes on."""

import asyncio
import re
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import fake_redis
from tests.support.fake_redis import FakeRedis
from tests.support.page import BUSY, Visitor, serving
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import eventually, wait_until

Start = Callable[..., Program]

#: Nobody reads the log while the pages are visited.
QUIET = "--access-log=false"


def switched(server: Program) -> list[str]:
    """Return what the log of a program that has ended says of the counter."""
    return re.findall(r"counter (on|off)", server.log.decode())


def stop(server: Program) -> float:
    """Stop the program and return how long that took; it must end well."""
    start = time.monotonic()
    server.signal()
    assert server.wait() == 0, server.log.decode()
    return time.monotonic() - start


@pytest.mark.gen_test(timeout=40)
async def test_64_visits_wait_for_a_valkey_that_hangs(valkey: Valkey, program: Start) -> None:
    server = program(f"--redis-url={valkey.url}", QUIET)
    visitor = Visitor(server.url)
    assert await visitor.visit() == 1

    valkey.hang()
    hung = time.monotonic()
    seen = await asyncio.gather(*(visitor.timed() for _ in range(64)))
    assert {number for number, _ in seen} == {None}
    assert max(seconds for _, seconds in seen) < 2.5

    # Off for a while: nothing waits, whatever the probes do.
    made = 65
    while time.monotonic() < hung + 3.5:
        await visitor.assert_at_once()
        made += 20

    valkey.go_on()
    number = await visitor.counted_again()
    assert number <= made + 1
    assert await visitor.visit() == number + 1 == valkey.counter()

    visitor.close()
    await asyncio.to_thread(stop, server)
    assert switched(server) == ["on", "off", "on"]


@pytest.mark.gen_test(timeout=40)
async def test_a_valkey_killed_under_load_comes_back_with_no_number_shown_twice(
    valkey: Valkey, program: Start
) -> None:
    server = program(f"--redis-url={valkey.url}", "--redis-timeout=1", QUIET)
    visitor = Visitor(server.url)
    seen: list[int | None] = []
    done = False

    async def load() -> None:
        while not done:
            seen.append(await visitor.visit())

    visitors = [asyncio.create_task(load()) for _ in range(16)]
    await eventually(lambda: len(seen) > 200)
    for _ in range(2):
        valkey.kill()
        pages = len(seen)
        await eventually(lambda pages=pages: seen[pages + 50 :].count(None) > 50)
        await asyncio.to_thread(valkey.start)
        await visitor.counted_again()
    done = True
    await asyncio.gather(*visitors)
    numbers = [number for number in seen if number is not None]
    assert len(numbers) == len(set(numbers))

    visitor.close()
    await asyncio.to_thread(stop, server)
    assert switched(server) == ["on", "off", "on", "off", "on"]


@pytest.mark.gen_test(timeout=40)
async def test_a_valkey_that_hangs_briefly_costs_no_visit(valkey: Valkey, program: Start) -> None:
    server = program(f"--redis-url={valkey.url}", QUIET)
    visitor = Visitor(server.url)
    assert await visitor.visit() == 1
    valkey.hang()
    visits = [asyncio.create_task(visitor.visit()) for _ in range(20)]
    await asyncio.sleep(0.5)
    valkey.go_on()
    assert sorted(await asyncio.gather(*visits)) == list(range(2, 22))
    visitor.close()


@pytest.mark.gen_test(timeout=40)
async def test_a_valkey_that_comes_later_is_found(valkey: Valkey, program: Start) -> None:
    valkey.kill()
    server = program(f"--redis-url={valkey.url}", QUIET)
    visitor = Visitor(server.url)
    await visitor.assert_at_once(50)
    await asyncio.to_thread(valkey.start)
    assert await visitor.counted_again() == 1
    visitor.close()
    await asyncio.to_thread(stop, server)
    assert switched(server) == ["off", "on"]


@pytest.mark.gen_test(timeout=20)
async def test_a_late_reply_is_never_the_next_visits_number(fake: FakeRedis) -> None:
    async with serving(fake.url, timeout=0.3) as visitor:
        assert await visitor.visit() == 1
        fake.answer = fake_redis.late(0.35)
        assert await visitor.visit() is None
        fake.heal()  # while the reply, 2, is on its way
        assert await visitor.counted_again() == 3
        assert [await visitor.visit() for _ in range(3)] == [4, 5, 6]
        assert fake.visits()[1].connection.closed


@pytest.mark.gen_test(timeout=20)
async def test_going_off_and_coming_back_are_one_line_each(
    fake: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(fake.url, timeout=0.3) as visitor:
        for _ in range(2):
            assert await visitor.counted_again()
            caplog.clear()
            fake.refuse()
            await asyncio.gather(*(visitor.visit() for _ in range(50)))
            tries = len(fake.connections)
            fake.hanging_up = True
            fake.listen()
            await eventually(lambda tries=tries: len(fake.connections) >= tries + 2)
            await visitor.assert_at_once(100)
            fake.heal()
            assert await visitor.counted_again()
            await asyncio.gather(*(visitor.visit() for _ in range(50)))
            lines = [(one.levelname, one.getMessage()) for one in caplog.records]
            assert [level for level, _ in lines] == ["WARNING", "INFO"]
            assert lines[0][1].startswith("counter off: ")
            assert lines[1][1] == "counter on"


@pytest.mark.gen_test(timeout=20)
async def test_replies_slower_than_half_the_deadline_keep_the_counter_off(
    fake: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(fake.url, timeout=0.5) as visitor:
        assert await visitor.visit() == 1
        fake.answer = fake_redis.late(0.3)

        async def load() -> None:
            while len(probes()) < 4:
                number, seconds = await visitor.timed()
                assert seconds < 0.5 + BUSY
                await asyncio.sleep(0.01 if number is None else 0)

        def probes() -> list[fake_redis.Command]:
            return [one for one in fake.commands if one.words == ("INCRBY", "counter", "0")]

        await asyncio.gather(*(load() for _ in range(10)))
        assert [one.levelname for one in caplog.records] == ["WARNING"]
        fake.heal()
        await visitor.counted_again()


def test_stops_within_a_second_while_valkey_hangs(valkey: Valkey, program: Start) -> None:
    counting = program(f"--redis-url={valkey.url}", QUIET)
    off = program(f"--redis-url={valkey.url}", "--redis-timeout=0.3", QUIET)
    assert (counting.visits(), off.visits()) == (1, 2)
    valkey.hang()
    assert off.visits() is None
    assert stop(counting) < 1
    assert stop(off) < 1


@pytest.mark.parametrize("hang", ["always", "every other time"])
def test_stops_within_a_second_while_a_look_up_hangs(
    fake: FakeRedis, program: Start, tmp_path: Path, hang: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            import socket, sys, time

            sys.modules["uvloop"] = None  # which looks names up past Python's socket module
            real, asked = socket.getaddrinfo, 0

            def getaddrinfo(host, *args, **options):
                global asked
                if host in ("redis.invalid", b"redis.invalid"):
                    asked += 1
                    if {hang == "always"} or asked % 2 == 1:
                        time.sleep(60)
                    host = "127.0.0.1"
                return real(host, *args, **options)

            socket.getaddrinfo = getaddrinfo
        """)
    )
    server = program(
        f"--redis-url=redis://redis.invalid:{fake.port}", QUIET, PYTHONPATH=str(tmp_path)
    )
    server.wait_for(rb"counter off")
    if hang == "always":
        times = []
        for _ in range(20):
            start = time.monotonic()
            assert server.visits() is None
            times.append(time.monotonic() - start)
        assert sorted(times)[10] < 0.05
        time.sleep(2.6)  # for a handful of probes to hang
        assert server.visits() is None
    else:  # the second look-up does not wait for the first
        wait_until(lambda: server.visits(), 2)
    assert stop(server) < 1


@pytest.mark.parametrize("away", ["silent", "refusing", "look-up hangs"])
def test_connections_and_threads_do_not_pile_up_while_redis_is_away(
    fake: FakeRedis, program: Start, tmp_path: Path, away: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\n"
        "real = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda host, *args, **options: (\n"
        "    time.sleep(60) if host == 'redis.invalid' else real(host, *args, **options))\n"
    )
    fake.silent, fake.hanging_up = away == "silent", away == "refusing"
    host = "redis.invalid" if away == "look-up hangs" else "127.0.0.1"
    server = program(f"--redis-url=redis://{host}:{fake.port}", QUIET, PYTHONPATH=str(tmp_path))
    server.wait_for(rb"counter off")
    process = Path("/proc") / str(server.process.pid)
    threads, files = len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))
    before, pages, start = len(fake.connections), 0, time.monotonic()
    most_threads = most_files = 0
    while time.monotonic() < start + 5:
        assert server.visits() is None
        pages += 1
        most_threads = max(most_threads, len(list((process / "task").iterdir())))
        most_files = max(most_files, len(list((process / "fd").iterdir())))
        time.sleep(0.01)
    assert pages > 50
    # Two tries a second; redis-py connects twice when the first connection ends at once.
    assert len(fake.connections) - before <= 5 * 2 * 2 + 2
    assert most_threads - threads <= 5 * 2 + 2
    assert most_files - files <= 10
    assert len(fake.open()) <= 10
    assert not fake.visits()
    assert stop(server) < 1
    assert switched(server) == ["off"]
