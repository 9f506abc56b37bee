"""What happened is found in what processes have written, again and again the same."""

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest

from replicas import Mark, Record, Snapshot, marks, versions_of
from replicas.keys import DAY
from replicas.marks import MAX_MARKS
from replicas.records import Outage, Sign
from tests.support.counting import replicas_in

NOW = 1_764_220_000.0


def marks_of(records: Sequence[Record]) -> list[Mark]:
    return asyncio.run(marks.marks_of(records, NOW))


def process(hostname: str, started: float, seen: float, **more: object) -> Record:
    """Return the record of one that began and was seen last so many seconds ago."""
    begun = NOW - started if started else 0.0
    one = Record(f"{hostname}-{started}", hostname, 1, NOW - seen, "1.0", started=begun)
    return dataclasses.replace(one, **more)  # type: ignore[arg-type]


def found(*processes: Record) -> list[tuple[float, str, str]]:
    """Return how long ago what happened to which replica."""
    marks = [one for one in marks_of(processes) if one.kind != "version"]
    return [(round(NOW - one.time, 3), one.kind, one.hostname) for one in marks]


def test_a_replica_that_says_goodbye_is_gone_and_one_that_starts_anew_comes_again() -> None:
    first = process("web-1", 100, 60, state="gone")
    other = process("web-2", 100, 0)
    gone = [*((100, "came", f"web-{i}") for i in (1, 2)), (60, "gone", "web-1")]
    assert found(first, other) == gone
    assert found(process("web-1", 59.5, 0), first, other) == [*gone, (59.5, "came", "web-1")]
    third = [process("web-1", began, 0) for began in (50, 49.9)]
    ended = process("web-1", 59.5, 55, state="gone")
    assert found(first, ended, *third)[1:] == [
        *((60, "gone", "web-1"), (59.5, "came", "web-1"), (55, "gone", "web-1")),
        (50, "came", "web-1"),
    ]
    killed = process("web-1", 100, 60)
    anew = [(60, "silent", "web-1"), (58, "came", "web-1")]
    assert found(process("web-1", 58, 0), killed)[1:] == anew


def test_a_replica_of_several_processes_comes_once_and_is_gone_when_all_of_them_are() -> None:
    def state(*processes: Record) -> str:
        return replicas_in(Snapshot(NOW, 3, processes))[0].state

    workers = [process("web-1", 100 - i / 10, seen) for i, seen in enumerate((0.5, 99, 40))]
    assert found(*workers, process("web-1", 50, 1)) == [(100, "came", "web-1")], "one starts again"
    assert replicas_in(Snapshot(NOW, 3, workers))[0].seen == pytest.approx(0.5, abs=0.001)
    gone = [process("web-1", 50, seen, state="gone") for seen in (1.0, 1.2)]
    stays = process("web-1", 50, 1.1, state="draining")
    assert found(*gone, stays) == [(50, "came", "web-1")]
    assert state(*gone, stays) == "draining"
    ended = dataclasses.replace(stays, state="gone", seen_at=NOW - 0.2)
    assert found(*gone, ended)[1:] == [(0.2, "gone", "web-1")]
    assert state(ended, *gone, process("web-1", 50, 30)) == "gone"
    assert state(process("web-1", 50, 0.1), *gone) == ""


def test_a_replica_is_silent_five_seconds_after_the_one_seen_last() -> None:
    latest = process("web-1", 90, 2)
    came = [(90, "came", "web-1"), (80, "came", "web-2")]
    assert found(latest, process("web-2", 80, 6.9)) == came
    silent = [process("web-2", 80, 7.2), process("web-2", 80, 8)]
    assert found(latest, *silent) == [*came, (7.2, "silent", "web-2")]
    assert [one.state for one in replicas_in(Snapshot(NOW, 3, [latest, *silent]))] == ["", "silent"]
    draining = process("web-2", 80, 7.2, state="draining")
    assert found(latest, draining)[2:] == [(7.2, "silent", "web-2")], "it was killed then"
    idle, gone = process("web-1", 90, 60), process("web-2", 80, 1, state="gone")
    assert [one.state for one in replicas_in(Snapshot(NOW, 3, [gone, idle]))] == ["", "gone"]


def test_redis_was_away_from_the_first_process_that_saw_it_to_the_last() -> None:
    def away(*outages: tuple[float, float]) -> list[Outage]:
        return [Outage(NOW - start, NOW - end, f"since {start}") for start, end in outages]

    marks = marks_of(
        [
            process("web-1", 0, 0, away=away((50, 40), (10, 8))),
            process("web-2", 0, 0, away=away((49, 39.5), (90, 80), (9, 8.5))),
            process("web-3", 0, 0, away=away((30.2, 29), (30.4, 28.5))),
            process("web-4", 0, 0, away=away((30.3, 28), (-60, -70))),  # that one lies ahead
        ]
    )
    assert [(round(NOW - one.time, 3), NOW - one.until, one.reason) for one in marks] == [
        *((90, 80, "since 90"), (50, 39.5, "since 50"), (30.4, 28, "since 30.4")),
        (10, 8, "since 10"),
    ]


def test_versions_are_in_the_order_in_which_they_were_seen_first() -> None:
    processes = [
        process("web-1", 10, 0, version="1.2"),
        process("web-2", 90, 0, version="1.10"),
        process("web-3", 50, 0, version="1.2"),
        process("web-4", 40, 0, version=""),
        process("old", 0, 0, version="0.9"),  # did not write it
    ]
    assert versions_of(processes) == ["0.9", "1.10", "1.2", ""]
    seen = [one for one in marks_of(processes) if one.kind == "version"]
    assert [(one.version, NOW - one.time) for one in seen] == [("1.10", 90), ("1.2", 50)]


def test_the_newest_marks_of_a_day_are_told() -> None:
    many = [process(f"web-{i}", i + 1, 0) for i in range(MAX_MARKS + 50)]
    marks = marks_of(many)
    assert len(marks) == MAX_MARKS
    assert [one.time for one in marks] == sorted(one.time for one in marks)
    assert marks[-1].time == NOW - 1
    assert found(process("web-1", DAY + 1, 0)) == []


def test_all_times_of_a_record_move_with_redis_clock() -> None:
    one = Record("id", "web-1", 1, 10.0, started=5.0, away=[Outage(1, 2, "it went")])
    one = dataclasses.replace(one, sign=Sign(9, 7))
    later = Record("id", "web-1", 1, 20.0, started=15.0, away=[Outage(11, 12, "it went")])
    assert one.moved(10) == dataclasses.replace(later, sign=Sign(19, 7))
    assert one.moved(0) == one
    assert Record("id", "web-1", 1, 10.0).moved(10).started == 0, "an older program told none"
