"""The load of ``--rate``, and how a load is reported and drawn."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from audit.load import Load, Visit
from audit.plot import draw
from audit.report import Judgement, Report
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


#: After a change of what the audit shows, read the new text, and look at the new picture in a
#: browser, before you put it here.
SHOWN = Path(__file__).parent / "shown"


def test_an_outage_is_the_longest_stretch_without_a_counted_visit() -> None:
    visits = [Visit(i / 10, 0.01, "a", i + 1) for i in range(10)]
    visits += [Visit(0.95 + i / 10, 0.01, "a") for i in range(20)]
    visits += [Visit(3 + i / 10, 0.01, "a", i + 11) for i in range(10)]
    assert Report(visits, 4.0).stretch == pytest.approx((0.91, 3.01))


def test_latencies_are_those_of_the_answered_visits_from_when_each_was_due() -> None:
    visits = [Visit(0, i / 1000, "a", i) for i in range(1, 101)]
    report = Report([*visits, Visit(0, 9.0, failure="timeout")], 9.0)
    assert [report.latency(share) for share in (0.5, 0.9, 0.99, 1)] == [0.05, 0.09, 0.099, 0.1]
    late = [Visit(5.0, 0.5, "a", 1, waited=4.5)]
    assert Report(late, 5.5).latency(1.0) == 5.0
    assert Report(late, 5.5).stretch == (0.0, 5.5)
    assert ">10,000<" in draw(late, 5.5), "ms: the scale's next power of ten"


def test_the_rate_that_was_reached_is_no_higher_than_the_one_asked_for() -> None:
    visits = [Visit(0, 0.001, "a", 1), Visit(0.1, 0.001, "a", 2)]
    assert Report(visits, 0.1).reached == 20
    assert Report(visits, 0.1, rate=10).reached == 10


def bad_load() -> list[Visit]:
    """More replicas than colours, a long name, each kind of fault, a latency of a second."""
    names = ["<a>", *"bcdefgh", "replica-whose-name-is-too-long"]
    visits = [Visit(i / 100, 0.002 + i % 7 / 1000, names[i % len(names)], i) for i in range(1, 300)]
    del visits[200:203], visits[7]
    visits += [Visit(1.5, 0.1, failure="refused"), Visit(1.6, 0.1, "<a>"), Visit(2, 1.0, "b", 30)]
    return visits


def test_a_load_is_told_and_drawn_as_these_files_show() -> None:
    bad = Report(bad_load(), 3.0, Judgement(exclusive=True), rate=101)
    empty = Report([], 0.0)
    for shown, name in (
        (drawn(bad_load(), 3.0), "bad.svg"),
        (f"{bad.as_text()}\n\n{empty.as_text()}\n", "bad_and_empty.txt"),
        (json.dumps([bad.as_json(), empty.as_json()], indent=2) + "\n", "bad_and_empty.json"),
    ):
        assert shown == (SHOWN / name).read_text(), name
    assert "uncounted" not in drawn([], 0.0)


def drawn(visits: Sequence[Visit], seconds: float) -> str:
    svg = ElementTree.fromstring(draw(visits, seconds))
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"
