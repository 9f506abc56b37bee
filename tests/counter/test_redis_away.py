"""Redis hangs, dies, comes late and comes back: no page waits for long, and counting goes on."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import counter.probing
from counter.resolver import MAX_LOOK_UPS
from tests.support import Caplog, fake_redis
from tests.support.before import run_before
from tests.support.fake_redis import FakeRedis
from tests.support.names import Names, names_of
from tests.support.page import counters_lines, serving
from tests.support.processes import SOON, seconds_to_stop
from tests.support.program import Start
from tests.support.valkey import Valkey
from tests.support.waiting import BUSY, PATIENCE, eventually, wait_until


@pytest.fixture(autouse=True)
def _logged(caplog: Caplog) -> None:
    caplog.set_level("INFO", logger="friendlyhello.visits")


@pytest.fixture
def names() -> Iterator[Names]:
    yield from names_of({"redis.invalid": ["127.0.0.1"]})


def switches(caplog: Caplog) -> list[str]:
    """Return what the counter's log lines say."""
    return [text.partition(":")[0] for _, text in counters_lines(caplog)]


async def test_64_visits_wait_for_a_valkey_that_hangs(valkey: Valkey, caplog: Caplog) -> None:
    async with serving(valkey.url, timeout=1) as visitor:
        assert await visitor.visit() == 1
        valkey.hang()
        # None waits for another's deadline to pass, and then for its own: see `serving`.
        assert await asyncio.gather(*(visitor.visit() for _ in range(64))) == [None] * 64
        # Off for a while: nothing waits, whatever the probes do, of which there are two.
        hung = time.monotonic()
        while time.monotonic() < hung + 1.1:
            await visitor.assert_at_once(2)
            await asyncio.sleep(0.05)
        valkey.go_on()  # it may count now those of whom it had the command
        numbers = [await visitor.counted_again()]
        while valkey.client.exists("{counter}:spares"):
            numbers.append(await visitor.visit() or 0)
        numbers.append(await visitor.visit() or 0)
        assert numbers == list(range(2, len(numbers) + 2))
        assert valkey.counter() == numbers[-1] <= 1 + 64 + len(numbers)
    assert switches(caplog) == ["counter off", "counter on"]


async def test_after_kill_9_no_number_is_shown_twice(valkey: Valkey, caplog: Caplog) -> None:
    async with serving(valkey.url) as visitor:
        seen: list[int | None] = []
        done = False

        async def load() -> None:
            while not done:
                seen.append(await visitor.visit())
                await asyncio.sleep(0.01)

        visitors = [asyncio.create_task(load()) for _ in range(16)]
        await eventually(lambda: len(seen) > 100)
        for _ in range(2):
            valkey.kill()
            pages = len(seen)
            await eventually(lambda pages=pages: seen[pages + 20 :].count(None) > 20)
            await asyncio.to_thread(valkey.start)
            await visitor.counted_again()
        done = True
        await asyncio.gather(*visitors)
    numbers = [number for number in seen if number is not None]
    assert len(numbers) == len(set(numbers))
    found = [text for text in switches(caplog) if text != "counter still off"]
    assert found == ["counter off", "counter on"] * 2


@pytest.mark.usefixtures("often_probed")
async def test_replies_that_are_too_slow_keep_it_off(fake: FakeRedis, caplog: Caplog) -> None:
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
            await asyncio.sleep(0.05)
        assert [level for level, _ in counters_lines(caplog)] == ["WARNING"]
        fake.heal()
        await visitor.counted_again()


def test_a_hung_look_up_holds_up_nothing(fake: FakeRedis, program: Start, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.touch()
    names = f"Names({{'redis.invalid': ['127.0.0.1']}}, Path({str(hang)!r})).install()"
    code = f"from pathlib import Path\nfrom tests.support.names import Names\n{names}"
    url, patient = f"redis://redis.invalid:{fake.port}", f"--redis-timeout={PATIENCE}"
    server = program(f"--redis-url={url}", patient, **run_before(tmp_path, code))
    threads = Path(f"/proc/{server.process.pid}/task")
    server.wait_for(rb"counter off")
    begun = time.monotonic()
    assert [server.visits() for _ in range(20)] == [None] * 20
    assert time.monotonic() - begun < PATIENCE / 2
    wait_until(lambda: len(list(threads.iterdir())) >= 5)
    hang.unlink()  # those that hang go on hanging
    begun = time.monotonic()
    wait_until(lambda: server.visits() == 1)
    assert time.monotonic() - begun < 2 + BUSY
    assert len(list(threads.iterdir())) <= MAX_LOOK_UPS + 4
    assert seconds_to_stop(server) < SOON


@pytest.mark.usefixtures("often_probed")
@pytest.mark.parametrize("away", ["silent", "refusing", "look-up hangs"])
async def test_connections_and_threads_do_not_pile_up_while_redis_is_away(
    fake: FakeRedis, names: Names, away: str, caplog: Caplog
) -> None:
    names.hanging.add("redis.invalid")
    fake.silent, fake.hanging_up = away == "silent", away == "refusing"
    host = "redis.invalid" if away == "look-up hangs" else "127.0.0.1"

    def tries() -> int:
        return len(fake.connections) + names.asked["redis.invalid"]

    async with serving(f"redis://{host}:{fake.port}", timeout=0.2) as visitor:
        await visitor.visits.start(1)
        assert await visitor.visit() is None
        before, start = tries(), time.monotonic()
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        # Those who ask for a name that hangs share its look-ups.
        while tries() < before + (2 if away == "look-up hangs" else 20):
            assert await visitor.visit() is None
            assert threading.active_count() - threads <= 4
            assert len(os.listdir("/proc/self/fd")) - files <= 20
            await asyncio.sleep(0.01)
        probes = (time.monotonic() - start) / counter.probing.PROBE_EVERY
        # redis-py connects twice when the first connection ends at once.
        assert tries() - before <= 2 * probes + 2
        assert len(fake.open()) <= 10
        assert not fake.visits()
    assert switches(caplog)[0] == "counter off"
    assert "counter on" not in switches(caplog)
