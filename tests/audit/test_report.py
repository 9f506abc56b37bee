"""The figures of a load, and how they are told and drawn."""

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from audit.load import Visit
from audit.plot import draw
from audit.report import Judgement, Report

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
