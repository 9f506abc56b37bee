"""What the benchmark says of figures: its goals, its tables, its bounds, and what has changed."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench import goals, report, scale
from bench.__main__ import judge
from bench.due import waits
from bench.results import HTTPS, NEW, OPEN, InProcess, Results, Row, Start, load, moved
from bench.servers import BY_NAME, OURS, lacks

A_ROW = Row(OURS, False, 1, 64, 100.0, 1.0, 2.0, 50.0, 1.0, 30.0, 0.5, 100.0, 10.0)
MACHINE = {"cpu": "a", "cores": "2"}


def results(*rates: float, server: str = OURS, machine: dict[str, str] = MACHINE) -> Results:
    rows = [replace(A_ROW, server=server, round=i, rate=rate) for i, rate in enumerate(rates)]
    return Results(machine=machine, rounds=len(rows), seconds=1, rows=rows)


def test_a_check_that_fails_is_said_and_is_a_failure_when_it_is_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Results(rows=[replace(A_ROW, server="flask", problem="2 answers failed")])
    judge(found)
    said = "bench: check failed: flask, 64 connections: 2 answers failed\n"
    assert capsys.readouterr().err == said
    found.rows += [replace(A_ROW, problem="1 answer failed")]
    with pytest.raises(SystemExit, match=r"^1$"):
        judge(found)
    assert f"{OURS}, 64 connections: 1 answer failed" in capsys.readouterr().err


def beside(server: str, kind: str = "kept", connections: int = 64, **figures: float) -> Results:
    """Return friendlyhello's row of a kind of load, and one of a peer that has other figures."""
    ours = replace(A_ROW, kind=kind, connections=connections)
    theirs = replace(ours, server=server, **figures)  # type: ignore[arg-type]
    return Results(rounds=1, rows=[ours, theirs])


def together(*several: Results) -> Results:
    """Return the rows of the first, and those of the others' peers."""
    first, *others = several
    first.rows += [row for other in others for row in other.rows if row.server != OURS]
    return first


LOGGED = beside("go", rate=50.0)
LOGGED.rows[0] = replace(LOGGED.rows[0], log=True)

FIRST_PAGES = Results(
    starts=[
        *(Start(OURS, False, 1, 110), Start("tornado", False, 1, 100)),
        Start("flask", True, 1, 200),
    ]
)


@pytest.mark.parametrize(
    ("found", "words", "said"),
    [
        *(
            (beside(server, connections=number, rate=10.0, p99=1.0), (what, at), said)
            for number, at in ((1, "at 1 connection,"), (4096, "at 4,096 connections,"))
            for server, title in (("go", "of Go `"), ("nginx", "of nginx"))
            for what, said in ((title, "10.0 ×, holds"), ("of the lower", "2.00 ×, **missed**"))
        ),
        # The median of the ratios of one round each.
        (
            together(results(120, 60, 130), results(100, 100, 100, server="node")),
            ("Node.js",),
            "1.20 (0.60–1.30) ×, holds",
        ),
        (
            together(beside("go", p99=4.0), beside("nginx", p99=2.5)),
            ("p99 at 64", "Go's and nginx's"),
            "0.80 ×, holds",
        ),
        # Each is compared in its own kind of load.
        (beside("go", NEW, rate=100.0), ("a new connection for each",), "1.00 ×, **missed**"),
        (beside("go", NEW, rate=100.0), ("at 64 connections, of Go",), "not measured"),
        (beside("sanic", HTTPS, rate=30.0), ("over HTTPS",), "3.33 ×, holds"),
        (beside("raw", cpu=20.0), ("CPU per page",), "2.50 ×, **missed**"),
        # A peer that gave no answer is not compared with.
        (beside("go", rate=0.0), ("requests/s, of Go",), "not measured"),
        # A peer that the load slowed down might do more.
        (beside("go", rate=50.0, busy=0.95), ("at 64 connections, of Go",), "at most 2.00 ×"),
        # With the log on, with Go's without.
        (LOGGED, ("logged, of Go's",), "2.00 ×, holds"),
        # The first page, with that of the earliest Python peer.
        (FIRST_PAGES, ("first page", "earliest"), "1.10 ×, **missed**"),
        (FIRST_PAGES, ("first page after", "≤ 120"), "110 ms, holds"),
    ],
)
def test_a_goal_is_judged_beside_the_peer_that_it_names(
    found: Results, words: tuple[str, ...], said: str
) -> None:
    [line] = [
        line for line in goals.table_of(found).splitlines() if all(word in line for word in words)
    ]
    assert said in line


def test_what_may_be_the_loads_own_is_a_bound_and_what_shows_a_limit_is_not_ranked() -> None:
    """A saturated load makes a rate a lower bound; a late one makes a latency an upper one."""
    found = results(100, 101)
    found.rows = [replace(row, busy=0.95) for row in found.rows]
    assert "≥ 100 (100–101)" in report.at_64(found, False)
    found = results(100)
    found.rows += [replace(A_ROW, kind=next(iter(OPEN)), due=9.0, busy=0.95)]
    assert f"| {BY_NAME[OURS].title} | ≤ 1.00 | ≤ 2.00 | 50.0 |" in report.at_fixed_rates(found)
    assert beside("raw", rate=1000.0, commands=0.0).ranking(False) == [OURS]


def test_the_report_has_tables_of_other_loads_and_of_a_page_and_names_what_is_missing() -> None:
    found = together(beside("go", NEW, rate=77.0), results(90, server="go"))
    found.rows += results(100).rows
    found.rows += [
        replace(A_ROW, kind=kind, connections=9, due=share * 1000) for kind, share in OPEN.items()
    ]
    found.pages = [InProcess(1, 30.5, 250_123.4), InProcess(64, 15.21, None)]
    assert lacks(replace(BY_NAME["go"], needs=("no-such-program",)).needs) == "no-such-program"
    found.missing["go"] = "go is not installed: apt-get install golang-go"
    found.skipped = ["Two server processes on two cores: too few."]
    lines = report.figures(found)
    for line in (
        *("| Go net/http with redigo | 77.0 |", "p99, ms, at 500/s", "p99, ms, at 900/s"),
        "| server | 64 |",  # of kept connections alone
        *("| 1 | 30.5 | 250,123 |", "| 64 | 15.2 | not counted |"),
        "Go net/http with redigo: go is not installed: apt-get install golang-go",
        "- Two server processes on two cores: too few.",
    ):
        assert line in lines
    assert "in process" not in report.figures(Results())


def test_latency_counts_from_when_a_request_was_due() -> None:
    # Two clients that ask every 10 ms. The server stands still from 20 ms on for 25 ms, so that
    # what was due at 30 and 35 ms is sent when the answers to 20 and 25 ms have come, at 45.
    sent = [
        *((0, 1), (5, 1), (10, 1), (15, 1), (20, 25)),
        *((25, 20), (45, 1), (45, 1), (45, 1), (46, 1)),
    ]
    requests = [(at * 1000, took * 1000) for at, took in sent]
    assert [wait / 1000 for wait in waits(requests, 2, 10_000)] == [
        *(1, 1, 1, 1, 25, 20, 16, 11, 6, 2),
    ]
    # A load that was early once makes no request late.
    requests = [(i * 10_000, 1000) for i in range(20)]
    requests[7] = (66_000, 1000)
    assert waits(requests, 1, 10_000) == [1000] * 20


def test_what_differs_from_the_committed_results_is_said() -> None:
    before, now = results(100, 105, 110), results(101, 112, 115)
    before.versions = {"Go": "1.24", "nginx": "1.26", "wrk": "4"}
    now.versions = {"Go": "1.19", "wrk": "4"}
    now.missing["nginx"] = "why"
    assert report.differences(before, now).endswith(
        "Go 1.19 instead of 1.24, nginx is missing instead of 1.26, nginx is not measured."
    )
    assert report.differences(before, before) == ""
    # Figures: those that moved by more than their spread, on the same machine.
    assert moved(before, now) == []
    [(what, earlier, later)] = moved(before, results(120, 125, 130))
    assert (earlier.median, later.median) == (105, 125)
    assert (OURS in what, "requests/s" in what) == (True, True)
    other = results(100, machine={"cpu": "b", "cores": "2"})
    assert "another machine" in report.changes(other, results(500))
    assert "no committed results" in report.changes(None, results(500))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = results(1, 2)
    found.missing["go"], found.skipped = "why", ["An open loop: why."]
    found.processes = [replace(A_ROW, processes=2)]
    found.pages = [InProcess(64, 15.21, None)]
    found.dump(tmp_path / "results.json")
    assert load((tmp_path / "results.json").read_text()) == found


def test_the_plan_for_a_million_visits_adds_up() -> None:
    found = results(1_000, 2_000, 10_000)
    found.growth = near = [replace(row, connections=64 + row.round) for row in found.rows]
    found.traffic = {"request": 41, "answer": 400}
    found.servers = [replace(row, distance=1.0, round_trip=1.0) for row in near]
    far = [
        replace(row, rate=row.rate * share, distance=20.0)
        for row, share in zip(near, (0.9, 1.0, 0.8), strict=True)
    ]
    found.distance = [*near, *far]
    said = scale.write(found)
    for line in (
        "10,000/s, measured at 66 connections",
        "1,000,000 / (10,000 × 0.7) = 143, each on a core of its own",
        "143 × 1,000 / 0.5 ms = 286,000/s",
        "1,000,000 / 10.0 = 100,000/s",
        "min(286,000, 100,000) = 100,000/s",
        "1,000,000 / 100,000 = 10.0",
        "1,000,000 × (400 + 66) × 8 = 3.7 Gbit/s out",
        "in the same round: 0.90 (0.80–1.00) at 20 ms.",
    ):
        assert line in said
