"""Faults of all kinds, one after the other, on one server that stays up."""

import random
import time
from pathlib import Path

import pytest

from tests.faults.test_redis_faults import FAULTS, Stage, start
from tests.support import raw_http
from tests.support.driven import BUSY, driven
from tests.support.exact import assert_exact, numbers
from tests.support.program import Start
from tests.support.proxy import Proxy
from tests.support.replayed import check
from tests.support.traces import Trace, recorded
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

DEADLINE = 1.0

#: Those that fit one deadline and leave Redis its data.
MIXED = {
    name: fault
    for name, fault in FAULTS.items()
    if fault.deadline == DEADLINE and not fault.restarts
}

#: What the server may take more at the end than after its first second.
MOST_GROWTH, MOST_DESCRIPTORS = 16 << 20, 4  # bytes


@pytest.mark.timeout(4000)
def test_a_server_that_has_seen_every_fault_is_as_it_was(
    valkey: Valkey, program: Start, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seconds = 60 * float(request.config.getoption("--soak"))
    chance = random.Random(1)
    seen: dict[str, float] = {}
    with Proxy([valkey.path]) as proxy:
        stage = Stage(valkey, proxy, folder, DEADLINE)
        variables = recorded(tmp_path, folder / "trace")
        server = start(program, f"redis://127.0.0.1:{proxy.port}", DEADLINE, **variables)
        with driven(server) as load:
            wait_until(lambda: len(load.visits) >= 200)  # then each of its connections is there
            before = raw_http.memory(server), raw_http.descriptors(server)
            while load.now < seconds or not seen:
                name, fault = chance.choice(list(MIXED.items()))
                with fault.inject(stage):
                    time.sleep(chance.uniform(0.2, 2))
                seen[name] = max(seen.get(name, 0), load.wait_counted(load.now))
                counted = len(load.counted_since(0))
                wait_until(lambda counted=counted: len(load.counted_since(0)) > counted + 60)  # type: ignore[misc]
            # What a fault has left to close may take a moment more.
            wait_until(lambda: raw_http.descriptors(server) <= before[1] + MOST_DESCRIPTORS)
            after = raw_http.memory(server), raw_http.descriptors(server)
        report = load.report()
        print(report.as_text())
        seen_in_all = assert_exact(valkey.client, [server], numbers(load))
    replies = check(Trace(folder / "trace").events(), shown=seen_in_all.elements())
    print(f"replies that are those of an order that was searched: {replies:,}")
    print(f"shown later, as nobody was shown them: {seen_in_all.total() - report.counted:,}")
    print(f"memory {before[0] >> 10:,} kB, at the end {after[0] >> 10:,} kB")
    print(f"descriptors {before[1]}, at the end {after[1]}")
    print("counting again at the latest after, in s:")
    for name, latest in sorted(seen.items()):
        print(f"  {name:40} {latest:.2f}")
    assert report.failed == 0
    assert load.latencies()[-1] < DEADLINE + BUSY
    assert valkey.counter() <= report.made
    assert after[0] < before[0] + MOST_GROWTH
