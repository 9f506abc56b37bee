"""The benchmark: what it says of figures, and that it runs. No speed is promised here."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import report, scale
from bench.__main__ import judge
from bench.results import Results, Row, load, lowest, moved, ratios, spread
from bench.servers import BY_NAME, OURS, PYTHON, SERVERS, lacks
from tests.support import ROOT
from tests.support.processes import processes_in
from tests.support.waiting import PATIENCE, wait_until

A_ROW = Row(OURS, False, 1, 64, 100.0, 1.0, 2.0, 50.0, 1.0, 30.0, 0.5, 100.0, 10.0)
MACHINE = {"cpu": "a", "cores": "2"}


def results(*rates: float, server: str = OURS, machine: dict[str, str] = MACHINE) -> Results:
    rows = [replace(A_ROW, server=server, round=i, rate=rate) for i, rate in enumerate(rates)]
    return Results(machine=machine, rounds=len(rows), seconds=1, rows=rows)


def run(*arguments: str, python: Path | str = sys.executable, **env: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [str(python), "-m", "bench", *arguments],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_missing_wrk_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    status, out, err = run(PATH=str(tmp_path))
    assert (status, out) == (1, "")
    assert err == "bench: wrk makes the load, and is not installed: apt-get install wrk\n"


@pytest.mark.parametrize(
    "flags", [["--rounds=0"], ["--seconds=-1"], ["--only=nobody"], ["dance"], ["--fast"]]
)
def test_a_bad_argument_is_one_line(flags: list[str]) -> None:
    status, out, err = run(*flags)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bench: ")


def test_a_check_that_fails_is_said_and_is_a_failure_when_it_is_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = results(1, server="flask")
    found.rows[0] = replace(found.rows[0], problem="2 answers failed")
    judge(found)
    assert (
        capsys.readouterr().err == "bench: check failed: flask, 64 connections: 2 answers failed\n"
    )

    found.rows += [replace(A_ROW, problem="1 answer failed")]
    with pytest.raises(SystemExit) as ended:
        judge(found)
    assert ended.value.code == 1
    assert f"{OURS}, 64 connections: 1 answer failed" in capsys.readouterr().err


def test_a_missing_toolchain_is_named_in_the_report() -> None:
    go = replace(BY_NAME["go"], needs=("no-such-program",))
    assert lacks(go.needs) == "no-such-program"
    found = results(1, 2)
    found.missing["go"] = "go is not installed: apt-get install golang-go"
    text = "\n".join(report.checks(found))
    assert "Go net/http with redigo: go is not installed: apt-get install golang-go" in text


def test_ratios_are_of_one_round_each() -> None:
    assert ratios([10, 40], [5, 10]) == [2, 4]
    assert lowest([[3, 1], [2, 5]]) == [2, 1]
    assert spread([3, 1, 2]) == (2, 1, 3)


def test_a_goal_is_judged_by_the_median_of_the_ratios() -> None:
    found = results(120, 60, 130)
    found.rows += results(100, 100, 100, server="node").rows
    goal = next(line for line in report.goals(found) if "Node.js" in line)
    assert "1.20 (0.60–1.30) ×, holds" in goal
    found.rows += results(1000, 1000, 1000, server="go").rows
    goal = next(line for line in report.goals(found) if "redigo" in line)
    assert "**missed**" in goal


def test_a_saturated_load_makes_a_rate_a_lower_bound() -> None:
    found = results(100, 101)
    found.rows = [replace(row, busy=0.95) for row in found.rows]
    assert any("≥ 100 (100–101)" in line for line in report.at_64(found, False))


def test_what_moved_by_more_than_its_spread_is_named() -> None:
    before = results(100, 105, 110)
    assert moved(before, results(101, 112, 115)) == []
    [one] = moved(before, results(120, 125, 130))
    assert (one.now.median, one.before.median) == (125, 105)
    assert OURS in one.what
    assert "requests/s" in one.what


def test_another_machines_figures_are_not_compared() -> None:
    other = results(100, machine={"cpu": "b", "cores": "2"})
    assert "another machine" in report.changes(other, results(500))[0]
    assert "no committed results" in report.changes(None, results(500))[0]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = results(1, 2)
    found.missing["go"] = "why"
    found.dump(tmp_path / "results.json")
    assert load((tmp_path / "results.json").read_text()) == found


def test_the_plan_for_a_million_visits_adds_up() -> None:
    found = results(10_000, 10_000)
    found.growth, found.traffic = found.rows, {"request": 41, "answer": 400}
    plan = scale.plan(found)
    assert plan.processes == 143  # 1,000,000 / (10,000 × 0.7), rounded up
    assert plan.offered == 286_000  # at 0.5 ms
    assert plan.capacity == plan.commands == 100_000  # 10 µs each
    assert plan.group == 10
    assert plan.out_gbit == pytest.approx((400 + 66) * 8 / 1000)


def test_what_distance_leaves_of_the_throughput_is_of_the_same_round() -> None:
    found = results(1_000, 2_000, 4_000)
    near = found.rows
    far = [
        replace(row, rate=row.rate * share, distance=20.0)
        for row, share in zip(near, (0.9, 1.0, 0.8), strict=True)
    ]
    found.growth, found.traffic = near, {"request": 41, "answer": 400}
    found.distance = [row for round_ in zip(near, far, strict=True) for row in round_]
    found.servers = [replace(row, distance=1.0, round_trip=1.0) for row in near]
    assert "in the same round: 0.90 (0.80–1.00) at 20 ms." in scale.write(found)


def test_each_server_is_in_the_table_once_and_its_peer_is_there() -> None:
    assert len(BY_NAME) == len(SERVERS)
    for server in SERVERS:
        for part in server.command:
            if "/peers/" in part and part.endswith((".py", ".js", ".sh")):
                assert Path(part).exists()


def test_a_short_run_measures_the_server_and_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = (f"--only={OURS}", "--rounds=1", "--seconds=0.2")
    status, out, err = run(*arguments, python=PYTHON, TMPDIR=str(tmp_path))
    assert (status, err) == (0, "")
    assert "Each answer was a 200" in out
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import os, pathlib, signal, subprocess, sys
from bench import measure

begin = subprocess.Popen

def interrupted(*arguments, **options):
    process = begin(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return process

subprocess.Popen = interrupted
with measure.running(["sleep", "60"], os.sched_getaffinity(0), pathlib.Path(sys.argv[1])):
    sys.exit("went on")
"""


def test_ctrl_c_while_a_process_begins_does_not_leave_it_behind(tmp_path: Path) -> None:
    command = ["env", "--default-signal=INT", str(PYTHON), "-c", INTERRUPTED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    try:
        assert "KeyboardInterrupt" in done.stderr
        assert processes_in(tmp_path) == set()
    finally:
        for process in processes_in(tmp_path):
            os.kill(process, signal.SIGKILL)


def test_ctrl_c_is_one_line_and_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        # A shell that runs the tests in the background has them ignore Ctrl-C.
        ["env", "--default-signal=INT", str(PYTHON), "-m", "bench", f"--only={OURS}"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: any(map(processes_in, tmp_path.glob(f"*/{OURS}-0"))))
        (folder,) = tmp_path.glob(f"*/{OURS}-0")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (130, "bench: interrupted\n")
    assert processes_in(folder) == set()
    assert list(tmp_path.iterdir()) == []
