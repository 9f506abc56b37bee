"""``--rate``: visits are due evenly, and a stall shows in all that were due meanwhile."""

import asyncio
import json
import time
from threading import Event
from xml.etree import ElementTree

import pytest

from audit.load import Load, Visit
from audit.plot import draw
from audit.report import Report
from tests.audit.auditing import Speaking, check, page
from tests.support.waiting import PATIENCE, eventually

#: Of the stall, in seconds.
LONG = 0.6


def test_a_stall_shows_in_all_visits_due_meanwhile(speaking: Speaking, free: Event) -> None:
    stall = Event()
    url = speaking(lambda n: (n == 10 and (stall.set(), free.wait(PATIENCE)), page(n))[1]).url
    load = Load(url, requests=200, rate=100, concurrency=1, keep_alive=True)

    async def run() -> None:
        running = asyncio.create_task(load.run())
        await eventually(stall.is_set)
        began = load.now
        await eventually(lambda: load.now > began + LONG)
        free.set()
        await running

    asyncio.run(run())
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
    assert " from when each was due\n" in text
    [seconds] = [float(line.split()[3]) for line in text.splitlines() if " visits in " in line]
    assert 19 / 50 <= seconds < 10  # a second for each would be 19


def test_without_a_rate_there_is_none_to_tell_and_none_is_said_to_be_exceeded() -> None:
    report = Report([Visit(i / 10, 0.1, "a", i) for i in range(10)], 1.0)
    assert report.as_json()["rate"] == {"asked": None, "reached": 10.0}
    assert "asked for" not in report.as_text()
    assert "due" not in report.as_text()
    visits = [Visit(0, 0.001, "a", 1), Visit(0.1, 0.001, "a", 2)]
    assert Report(visits, 0.101, rate=10).reached == 10


def test_the_latency_of_report_and_plot_counts_from_when_a_visit_was_due() -> None:
    visits = [Visit(5.0, 0.5, "a", 1, waited=4.5)]
    assert Report(visits, 5.5).latency(1.0) == 5.0
    assert Report(visits, 5.5).stretch == (0.0, 5.5)
    texts = {element.text for element in ElementTree.fromstring(draw(visits, 5.5)).iter()}
    assert "10,000" in texts  # ms: the scale's next power of ten
