"""Redis hangs, dies, comes late and comes back: no page waits for long, and counting goes on."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import counter.probing
from tests.support import fake_redis
from tests.support.before import run_before
from tests.support.fake_redis import FakeRedis
from tests.support.page import Visitor, counters_lines, serving
from tests.support.processes import seconds_to_stop
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, eventually, wait_until, within

Start = Callable[..., Program]

#: Nobody reads the log while the pages are visited.
QUIET = "--access-log=false"

#: No visit that waits for Redis is answered by its deadline.
PATIENT = f"--redis-timeout={PATIENCE}"

#: Seconds that a busy machine may add to a page of another process, and far from that deadline.
ELSEWHERE = 2.0


def switched(server: Program) -> list[str]:
    """Stop the program within a second, and return what its log says of the counter."""
    assert seconds_to_stop(server) < 1
    return re.findall(r"counter (on|off)", server.log.decode())


def switched_once_on(server: Program) -> list[str]:
    """Do so, but for what was logged before it first counted: it may have started off."""
    switches = switched(server)
    return switches[switches.index("on") + 1 :]


@pytest.mark.gen_test
async def test_64_visits_wait_for_a_valkey_that_hangs(valkey: Valkey, counting: Start) -> None:
    server = counting(f"--redis-url={valkey.url}", "--redis-timeout=1", QUIET)
    visitor = Visitor(server.url)
    assert await visitor.visit() == 1

    valkey.hang()
    visits = asyncio.gather(*(visitor.visit() for _ in range(64)))
    # None waits for another's deadline to pass, and then for its own.
    assert await within(1, visits, busy=0.8) == [None] * 64

    # Off for a while: nothing waits, whatever the probes do, of which there are two.
    made, hung = 65, time.monotonic()
    while time.monotonic() < hung + 1.1:
        await visitor.assert_at_once(busy=0.8)
        made += 20

    valkey.go_on()  # it may count now those of whom it had the command
    numbers = [await visitor.counted_again()]
    while valkey.client.exists("{counter}:spares"):
        numbers.append(await visitor.visit() or 0)
    numbers.append(await visitor.visit() or 0)
    assert numbers == list(range(2, len(numbers) + 2))
    assert valkey.counter() == numbers[-1] <= made + 1

    visitor.close()
    assert await asyncio.to_thread(switched_once_on, server) == ["off", "on"]


@pytest.mark.gen_test
async def test_a_valkey_killed_under_load_comes_back_with_no_number_shown_twice(
    valkey: Valkey, counting: Start
) -> None:
    server = counting(f"--redis-url={valkey.url}", PATIENT, QUIET)
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
    assert await asyncio.to_thread(switched_once_on, server) == ["off", "on", "off", "on"]


@pytest.mark.gen_test
async def test_a_valkey_that_hangs_briefly_costs_no_visit(valkey: Valkey, counting: Start) -> None:
    server = counting(f"--redis-url={valkey.url}", PATIENT, QUIET)
    visitor = Visitor(server.url)
    assert await visitor.visit() == 1
    valkey.hang()
    visits = asyncio.gather(*(visitor.visit() for _ in range(20)))
    await asyncio.sleep(0.3)  # no visit may be answered meanwhile
    assert not visits.done()
    valkey.go_on()
    assert sorted(map(int, await visits)) == list(range(2, 22))  # type: ignore[arg-type]
    visitor.close()


@pytest.mark.gen_test
async def test_a_valkey_that_comes_later_is_found(valkey: Valkey, program: Start) -> None:
    valkey.kill()
    server = program(f"--redis-url={valkey.url}", PATIENT, QUIET)
    visitor = Visitor(server.url)
    await visitor.assert_at_once(50, busy=ELSEWHERE)
    await asyncio.to_thread(valkey.start)
    assert await visitor.counted_again() == 1
    visitor.close()
    assert await asyncio.to_thread(switched, server) == ["off", "on"]


@pytest.mark.gen_test
async def test_a_late_reply_is_never_the_next_visits_number(fake: FakeRedis) -> None:
    async with serving(fake.url, timeout=1) as visitor:
        assert await visitor.visit() == 1
        fake.answer_when_healed()
        assert await visitor.visit() is None
        fake.heal()  # and so the reply, 2, is on its way
        assert await visitor.counted_again() == 3
        assert [await visitor.visit() for _ in range(3)] == [4, 5, 6]
        assert fake.visits()[1].connection.closed


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
async def test_going_off_and_coming_back_are_one_line_each(
    fake: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(fake.url) as visitor:
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
            off, *still_off, on = counters_lines(caplog)
            assert on == ("INFO", "counter on")
            assert off[0] == "WARNING"
            assert off[1].startswith("counter off: ")
            assert len(set(still_off)) == len(still_off)
            for level, text in still_off:
                assert level == "WARNING"
                assert text.startswith("counter still off: ")
                assert text.removeprefix("counter still ") != off[1].removeprefix("counter ")


@pytest.mark.gen_test
@pytest.mark.usefixtures("often_probed")
async def test_replies_slower_than_half_the_deadline_keep_the_counter_off(
    fake: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")
    async with serving(fake.url, timeout=1) as visitor:
        assert await visitor.visit() == 1
        fake.answer = fake_redis.late(0.9)

        def probes() -> int:
            return sum(one.counts and not one.visits for one in fake.commands)

        # A visit that comes while another is counted waits for two replies, and has no time for
        # them, but where the machine brings it later.
        while visitor.visits.up:
            sent = len(fake.visits())
            first = asyncio.create_task(visitor.visit())
            await eventually(lambda sent=sent: len(fake.visits()) > sent)
            await asyncio.gather(first, *(visitor.visit() for _ in range(10)))
        while probes() < 5:
            assert await visitor.visit() is None
            await asyncio.sleep(0.01)
        assert [level for level, _ in counters_lines(caplog)] == ["WARNING"]
        fake.heal()
        await visitor.counted_again()


def test_stops_within_a_second_while_valkey_hangs(valkey: Valkey, counting: Start) -> None:
    on = counting(f"--redis-url={valkey.url}", QUIET)
    off = counting(f"--redis-url={valkey.url}", "--redis-timeout=1", QUIET)
    assert (on.visits(), off.visits()) == (1, 2)
    valkey.hang()
    assert off.visits() is None
    assert seconds_to_stop(on) < 1
    assert seconds_to_stop(off) < 1


#: Run in a program before its own code. It looks for Redis ten times as often; each time that it
#: looks one name up is a byte of a file.
BEFORE = """
import socket, time
import counter.probing

counter.probing.PROBE_EVERY /= 10
real, tries = socket.getaddrinfo, 0

def getaddrinfo(host, *args, **options):
    global tries
    if host in ("redis.invalid", b"redis.invalid"):
        tries += 1
        with open({file!r}, "a") as file:
            file.write(".")
        if {hangs}:
            time.sleep(3600)
        host = "127.0.0.1"
    return real(host, *args, **options)

socket.getaddrinfo = getaddrinfo
"""


class Resolver:
    """What looks names up in a program that has its variables; it hangs on a condition."""

    def __init__(self, folder: Path, hangs: str) -> None:
        self._file = folder / "tries"
        self._file.touch()
        self.variables = run_before(folder, BEFORE.format(file=str(self._file), hangs=hangs))

    @property
    def tries(self) -> int:
        return self._file.stat().st_size


def test_a_look_up_that_hangs_holds_up_no_page_and_no_end(
    fake: FakeRedis, program: Start, tmp_path: Path
) -> None:
    resolver = Resolver(tmp_path, hangs="True")
    url = f"--redis-url=redis://redis.invalid:{fake.port}"
    server = program(url, PATIENT, QUIET, **resolver.variables)
    server.wait_for(rb"counter off")
    begun = time.monotonic()
    assert [server.visits() for _ in range(20)] == [None] * 20
    assert time.monotonic() - begun < PATIENCE / 2
    wait_until(lambda: resolver.tries >= 5)
    assert server.visits() is None
    assert seconds_to_stop(server) < 1


def test_a_look_up_that_hangs_holds_up_no_other(
    fake: FakeRedis, program: Start, tmp_path: Path
) -> None:
    resolver = Resolver(tmp_path, hangs="tries % 2 == 1")
    url = f"--redis-url=redis://redis.invalid:{fake.port}"
    server = program(url, QUIET, **resolver.variables)
    server.wait_for(rb"counter off")
    wait_until(server.visits)
    assert seconds_to_stop(server) < 1


@pytest.mark.parametrize(
    "away", ["silent", pytest.param("refusing", marks=pytest.mark.slow), "look-up hangs"]
)
def test_connections_and_threads_do_not_pile_up_while_redis_is_away(
    fake: FakeRedis, program: Start, tmp_path: Path, away: str
) -> None:
    resolver = Resolver(tmp_path, hangs="True")
    fake.silent, fake.hanging_up = away == "silent", away == "refusing"
    host = "redis.invalid" if away == "look-up hangs" else "127.0.0.1"
    url = f"--redis-url=redis://{host}:{fake.port}"
    server = program(url, "--redis-timeout=0.2", QUIET, **resolver.variables)
    server.wait_for(rb"counter off")
    process = Path("/proc") / str(server.process.pid)

    def tries() -> int:
        return len(fake.connections) + resolver.tries

    def threads_and_files() -> tuple[int, int]:
        return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))

    before, start = tries(), time.monotonic()
    threads, files = most_threads, most_files = threads_and_files()
    # Those who ask for a name that hangs share its look-ups.
    while tries() < before + (2 if away == "look-up hangs" else 20):
        assert server.visits() is None
        now = threads_and_files()
        most_threads, most_files = max(most_threads, now[0]), max(most_files, now[1])
        time.sleep(0.01)
    probes = (time.monotonic() - start) / (counter.probing.PROBE_EVERY / 10)
    # redis-py connects twice when the first connection ends at once.
    assert tries() - before <= 2 * probes + 2
    assert most_threads - threads <= (4 if away == "look-up hangs" else 2)
    assert most_files - files <= 10
    assert len(fake.open()) <= 10
    assert not fake.visits()
    assert switched(server) == ["off"]
