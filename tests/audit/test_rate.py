"""``--rate``: visits are due evenly, and a stall shows in all that were due meanwhile."""

import asyncio
import json
import time

import pytest

from audit.load import Load
from audit.report import Report
from tests.audit.conftest import Speaking, check, page

#: Of the stall, in seconds.
LONG = 0.6


def test_a_stall_shows_in_all_visits_due_meanwhile(speaking: Speaking) -> None:
    url = speaking(lambda n: (n == 10 and time.sleep(LONG), page(n))[1]).url
    load = Load(url, requests=200, rate=100, concurrency=1, keep_alive=True)
    asyncio.run(load.run())
    report = Report(load.visits, load.now, rate=100)
    assert report.counted == 200
    # Every hundredth of a second one more was due: the first of them waited for all of it.
    waits = [visit.waited for visit in load.visits]
    assert sum(wait > LONG / 2 for wait in waits) >= 0.8 * LONG / 2 * 100
    assert (report.latency(0.9) or 0) > LONG / 2


def test_a_visit_has_waited_for_a_connection_but_not_for_a_late_timer() -> None:
    async def waits() -> list[float | None]:
        now = 0.0
        load = Load("http://h", requests=3, rate=10)
        load._clock = lambda: now
        first = await load._take_turn()
        second = asyncio.create_task(load._take_turn())  # due in a tenth of a second
        await asyncio.sleep(0)
        now = 5.0
        return [first, await second, await load._take_turn(), await load._take_turn()]

    assert asyncio.run(waits()) == [0.0, 0.0, pytest.approx(4.8), None]


def test_a_rate_is_not_exceeded_and_the_one_reached_is_told(speaking: Speaking) -> None:
    url = speaking(lambda n: (time.sleep(0.05), page(n))[1]).url
    arguments = (url, "--requests=20", "--concurrency=1", "--rate=1000")
    report = json.loads(check(*arguments, "--json").stdout)
    assert report["rate"]["asked"] == 1000
    assert 0 < report["rate"]["reached"] <= 1 / 0.05
    assert report["rate"]["reached"] == pytest.approx(20 / report["seconds"], rel=0.01)
    assert report["latency_ms"]["max"] > 19 * 50 * 0.9  # the last one was due at once
    text = check(url, "--requests=20", "--rate=50").stdout
    assert "/s of the 50/s asked for\n" in text
    seconds = float(text.split()[3])
    assert 19 / 50 <= seconds < 10  # a second for each would be 19
