"""32 visitors at once, each back as soon as it is answered, while Redis or the network fails."""

from pathlib import Path

import pytest

from tests.faults.test_redis_faults import FAULTS, Stage, start
from tests.support.driven import BUSY, Driven, driven
from tests.support.exact import assert_exact, numbers
from tests.support.program import Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

#: Where visits are to lose their numbers; and where none is, as a busy machine may get no batch
#: through between two cuts for a second.
DEADLINE, LONG_DEADLINE = 1, 10

#: name: how often, for how many seconds, and whether pages show no number meanwhile.
ROWS = {
    "connections reset every 50 ms": (1, 4.0, False),
    "hung": (1, 2.2, True),
    "killed and restarted": (2, 1.2, True),
    "replies swallowed": (1, 1.5, True),
    "copies of commands 500 ms late": (1, 4.0, False),
    "commands after the deadline": (1, 1.2, True),
    "scripts forgotten every 20 ms": (1, 4.0, False),
}


def wait(load: Driven, seconds: float) -> None:
    until = load.now + seconds
    wait_until(lambda: load.now > until)


@pytest.mark.parametrize("name", ROWS, ids=[name.replace(" ", "-") for name in ROWS])
def test_a_crowd_is_shown_each_number_once(
    name: str, valkey: Valkey, program: Start, folder: Path
) -> None:
    times, seconds, off = ROWS[name]
    with Proxy([valkey.path]) as proxy:
        deadline = DEADLINE if off else LONG_DEADLINE
        stage = Stage(valkey, proxy, folder, deadline)
        server = start(program, f"redis://127.0.0.1:{proxy.port}", deadline)
        with driven(server, rate=None) as load:
            for _ in range(times):
                with FAULTS[name].inject(stage):
                    wait(load, seconds)
                load.wait_counted(load.now)
            wait(load, 0.5)
        report = load.report()
        assert report.failed == 0, report.as_text()
        assert load.latencies()[-1] < deadline + BUSY
        assert bool(report.uncounted) is off, report.as_text()
        seen = assert_exact(valkey.client, [server], numbers(load))
    print(f"{name}: {report.uncounted:,} of {report.made:,} pages without a number")
    print(f"{name}: {report.number_missing:,} numbers were shown in the quiet after it")
    print(f"{name}: {valkey.counter():,} numbers, {seen.total():,} shown")
