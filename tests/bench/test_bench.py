"""The benchmark: what it says of figures, and that it runs. No speed is promised here."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import goals, report, scale
from bench.__main__ import judge
from bench.due import waits
from bench.results import HTTPS, NEW, OPEN, Results, Row, Start, load, moved
from bench.servers import BY_NAME, OURS, PYTHON, SERVERS, lacks
from tests.support import ROOT
from tests.support.processes import processes_in
from tests.support.waiting import PATIENCE, wait_until

A_ROW = Row(OURS, False, 1, 64, 100.0, 1.0, 2.0, 50.0, 1.0, 30.0, 0.5, 100.0, 10.0)
MACHINE = {"cpu": "a", "cores": "2"}


def results(*rates: float, server: str = OURS, machine: dict[str, str] = MACHINE) -> Results:
    rows = [replace(A_ROW, server=server, round=i, rate=rate) for i, rate in enumerate(rates)]
    return Results(machine=machine, rounds=len(rows), seconds=1, rows=rows)


def run(
    *arguments: str, how: str = "-mbench", python: Path | str = sys.executable, **env: str
) -> tuple[int, str, str]:
    done = subprocess.run(
        [str(python), how, *arguments],
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


def beside(server: str, kind: str = "kept", connections: int = 64, **figures: float) -> Results:
    """Return friendlyhello's row of each kind of load, and one of a peer that has other figures."""
    ours = replace(A_ROW, kind=kind, connections=connections)
    theirs = replace(ours, server=server, **figures)  # type: ignore[arg-type]
    return Results(rounds=1, rows=[ours, theirs])


def together(*several: Results) -> Results:
    """Return the rows of the first, and those of the others' peers."""
    first, *others = several
    first.rows += [row for other in others for row in other.rows if row.server != OURS]
    return first


def logged(found: Results) -> Results:
    found.rows[0] = replace(found.rows[0], log=True)
    return found


FIRST_PAGES = [(OURS, False, 110), ("tornado", False, 100), ("flask", True, 200)]


@pytest.mark.parametrize(
    ("found", "words", "said"),
    [
        *(
            case
            for connections in (1, 8, 64, 512, 4096)
            for server, title in (("go", "Go"), ("nginx", "nginx"))
            for found in [beside(server, connections=connections, rate=10.0, p99=1.0)]
            for at in [f"at {connections:,} connection"]
            for case in (
                (found, ("requests/s", at, f"of {title}"), "10.0 ×, holds"),
                (found, ("p99", at, "the lower of"), "2.00 ×, **missed**"),
            )
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
        (
            beside("sanic", HTTPS, rate=30.0),
            ("requests/s, of the fastest Python peer",),
            "not measured",
        ),
        (beside("raw", cpu=20.0), ("CPU per page",), "2.50 ×, **missed**"),
        # A peer that gave no answer is not compared with.
        (beside("go", rate=0.0), ("requests/s, of Go",), "not measured"),
        (beside("sanic", rate=0.0), ("requests/s, of the fastest",), "not measured"),
        # With the log on, with Go's without.
        (logged(beside("go", rate=50.0)), ("logged, of Go's",), "2.00 ×, holds"),
        # The first page, with that of the earliest Python peer.
        *(
            (Results(starts=[Start(server, log, 1, ms) for server, log, ms in FIRST_PAGES]), *case)
            for case in (
                (("first page", "earliest"), "1.10 ×, **missed**"),
                (("first page after", "≤ 120"), "110 ms, holds"),
            )
        ),
    ],
)
def test_a_goal_is_judged_beside_the_peer_that_it_names(
    found: Results, words: tuple[str, ...], said: str
) -> None:
    [line] = [line for line in goals.table_of(found) if all(word in line for word in words)]
    assert said in line


def test_a_saturated_load_makes_a_rate_a_lower_bound_and_a_late_one_a_latency_an_upper() -> None:
    found = results(100, 101)
    found.rows = [replace(row, busy=0.95) for row in found.rows]
    assert any("≥ 100 (100–101)" in line for line in report.at_64(found, False))
    found = results(100)
    found.rows += [replace(A_ROW, kind=next(iter(OPEN)), due=9.0, busy=0.95)]
    assert f"| {BY_NAME[OURS].title} | ≤ 1.00 | ≤ 2.00 | 50.0 |" in report.other_loads(found)


def test_what_only_shows_a_limit_is_in_no_ranking() -> None:
    assert beside("raw", rate=1000.0, commands=0.0).ranking(False) == [OURS]


def test_other_loads_have_tables_of_their_own() -> None:
    found = beside("go", NEW, rate=77.0)
    found.rows += [*results(100).rows, *results(90, server="go").rows]
    found.rows += [
        replace(A_ROW, kind=kind, connections=9, due=share * 1000) for kind, share in OPEN.items()
    ]
    text = "\n".join(report.figures(found))
    assert "| Go net/http with redigo | 77.0 |" in text
    assert "p99, ms, at 500/s" in text
    assert "p99, ms, at 900/s" in text
    assert "| server | 64 |" in text  # of kept connections alone


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


def test_what_differs_from_the_committed_versions_is_said() -> None:
    before, now = results(1), results(1)
    before.versions = {"Go": "1.24", "nginx": "1.26", "wrk": "4"}
    now.versions = {"Go": "1.19", "wrk": "4"}
    now.missing["nginx"] = "why"
    [line] = report.differences(before, now)
    assert line.endswith(
        "Go 1.19 instead of 1.24, nginx is missing instead of 1.26, nginx is not measured."
    )
    assert report.differences(before, before) == []


def test_what_moved_by_more_than_its_spread_is_named_on_the_same_machine() -> None:
    before = results(100, 105, 110)
    assert moved(before, results(101, 112, 115)) == []
    [one] = moved(before, results(120, 125, 130))
    assert (one.now.median, one.before.median) == (125, 105)
    assert OURS in one.what
    assert "requests/s" in one.what
    other = results(100, machine={"cpu": "b", "cores": "2"})
    assert "another machine" in report.changes(other, results(500))[0]
    assert "no committed results" in report.changes(None, results(500))[0]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = results(1, 2)
    found.missing["go"], found.skipped = "why", ["An open loop: why."]
    found.processes = [replace(A_ROW, processes=2)]
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


def test_one_command_of_the_documentation_installs_every_tool() -> None:
    text = (ROOT / "docs/performance.md").read_text()
    [command] = [line for line in text.splitlines() if line.startswith("$ apt-get update")]
    packages = {
        name
        for server in SERVERS
        for name in server.package.removeprefix("apt-get install ").split()
    }
    assert packages | {"wrk", "nghttp2-client"} <= set(command.split())
    assert command.endswith("&& make bench")


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
    for title in ("4,096", "A new connection for each", "HTTPS", "come at a fixed rate"):
        assert title in out
    assert list(tmp_path.iterdir()) == []


def script(text: str, *arguments: str) -> str:
    """Run a script that needs what only the benchmark's own Python has."""
    status, out, err = run(text, *arguments, how="-c", python=PYTHON)
    assert (status, err) == (0, "")
    return out


HELD = """
import socket
from bench.machine import held_port

with held_port() as port:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        socket.create_connection(("127.0.0.1", port))
    except ConnectionRefusedError:
        print("refused")
    with socket.socket() as other:  # a program that does not know of it
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            print("held")
    one.bind(("127.0.0.1", port))
    one.listen()
    socket.create_connection(("127.0.0.1", port)).close()
    print("served")
"""


def test_a_port_is_held_until_its_server_listens() -> None:
    assert script(HELD).split() == ["refused", "held", "served"]


LOADED = """
import asyncio, os, pathlib, sys, threading, time
from types import SimpleNamespace
from bench.load import Load, begin
from bench.results import KEPT, NEW, OPEN

class Server(asyncio.Protocol):
    connections, requests, first, stalled = 0, 0, 0.0, False

    def connection_made(self, transport):
        Server.connections += 1
        Server.first, self.transport = Server.first or time.monotonic(), transport

    def data_received(self, data):
        Server.requests += 1
        if "stall" in sys.argv and not Server.stalled and time.monotonic() - Server.first > 0.5:
            Server.stalled = True
            time.sleep(0.4)
        last = b"Connection: close" in data
        more = b"Connection: close\\r\\n" if last else b""
        self.transport.write(b"HTTP/1.1 200 OK\\r\\n" + more + b"Content-Length: 2\\r\\n\\r\\nok")
        if last:
            self.transport.close()

async def serve():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    site.url = "http://127.0.0.1:%d/" % server.sockets[0].getsockname()[1]
    ready.set()
    await asyncio.Event().wait()

site, ready = SimpleNamespace(), threading.Event()
threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
ready.wait()
load = Load.open(next(iter(OPEN)), 400) if "stall" in sys.argv else Load(4, eval(sys.argv[2]))
cores = frozenset(os.sched_getaffinity(0))
with begin(site, load, 2, cores, pathlib.Path(sys.argv[1])) as one:
    while Server.connections < load.connections or Server.requests < 100:
        time.sleep(0.01)
    one.stop()
    found = one.outcome()
print(found.requests, Server.connections, found.seconds, found.p99, sum(found.errors.values()))
sys.stdout.flush()
os._exit(0)
"""


def test_an_open_loop_goes_on_while_the_server_stands_still(tmp_path: Path) -> None:
    requests, _, seconds, p99, errors = map(float, script(LOADED, str(tmp_path), "stall").split())
    assert (requests, errors) == (800, 0)
    assert seconds > 1.9  # 400 a second, and no faster
    # Of 2 s it stood still for 0.4, so a tenth of the requests waited for half of that or more.
    assert p99 > 300


def test_each_request_has_a_connection_of_its_own_where_that_is_measured(tmp_path: Path) -> None:
    requests, connections, *_, errors = map(float, script(LOADED, str(tmp_path), "NEW").split())
    assert errors == 0
    assert connections > 0.9 * requests > 40
    requests, connections, *_ = map(float, script(LOADED, str(tmp_path), "KEPT").split())
    assert requests > 10 > connections


CORES = """
from bench import machine
for cores in ({0, 1, 2, 5}, {0, 3}):
    machine._AFFINITY = cores
    for servers in (1, 2):
        try:
            split = machine.split_cores(servers)
            print(sorted(split.server), sorted(split.load))
        except machine.BenchError as error:
            print(error)
"""


def test_the_server_and_the_load_share_no_core() -> None:
    assert script(CORES).splitlines() == [
        "[5] [0, 1, 2]",
        "[2, 5] [0, 1]",
        "[3] [0]",
        "3 cores are needed, and there are 2",
    ]


TWO = """
import os, pathlib, sys
from bench import run
from bench.machine import BenchError, Cores
from bench.results import Results
from bench.servers import BY_NAME

every = sorted(os.sched_getaffinity(0))
found, measure = Results(), run.Bench.measure

def measured(self, sites, *arguments):
    row = measure(self, sites, *arguments)
    print(len(self.cores.server), len(sites[0].tree()))
    return row

def split(servers):  # as if there were cores enough
    if sys.argv[2] == "few":
        raise BenchError("too few")
    return Cores(frozenset((every * 2)[:servers]) if servers == 1 else Two(every), frozenset(every))

class Two(frozenset):
    def __len__(self):
        return 2

run.Bench.measure, run.split_cores, run.SCALE_ROUNDS = measured, split, 1
run.two_processes(0.2, pathlib.Path(sys.argv[1]), [BY_NAME["friendlyhello"]], found)
print([row.processes for row in found.processes], found.skipped)
"""


def test_two_processes_are_measured_where_there_are_cores_for_them_and_else_named(
    tmp_path: Path,
) -> None:
    *seen, rows = script(TWO, str(tmp_path), "enough").splitlines()
    assert rows == "[1, 2] []"
    assert all(int(processes) >= int(cores) for cores, processes in map(str.split, seen))
    assert "1 1" in seen
    found, why = results(1), "Two server processes on two cores: too few."
    assert script(TWO, str(tmp_path), "few").strip() == f"[] ['{why}']"
    found.skipped = [why]
    assert f"- {why}" in report.checks(found)


LATE = """
import os, pathlib, sys, threading, time
from bench import measure as measuring, run
from bench.results import Results
from bench.servers import OURS

def come_late():  # as visits do that time out, and are made once more
    while True:
        for redis in others:
            redis.client.incr("counter")
        time.sleep(0.001)

def measured(sites, redis, *arguments):
    if sites[0].server.name != OURS and redis not in others:
        others.append(redis)
    return measure(sites, redis, *arguments)

def settled(sites, redis):
    return spent(sites, redis) if redis in others else settle(sites, redis)

others, measure, settle, spent = [], run.measure, measuring._settled, measuring._Spent.now
run.measure, measuring._settled = measured, settled
run.DISTANCES, run.FAR = (0,), {"tornado": 8, OURS: 8}
threading.Thread(target=come_late, daemon=True).start()
found = Results(rounds=1)
with run.bench(0.2, pathlib.Path(sys.argv[1]) / "one") as now:
    run.distance(now, found)
print({row.server: row.problem for row in found.distance}[OURS] or "sound", len(others))
sys.stdout.flush()
os._exit(0)
"""


def test_late_visits_of_a_peer_are_not_taken_for_the_servers(tmp_path: Path) -> None:
    assert script(LATE, str(tmp_path)) == "sound 1\n"


WORKING = """
import subprocess, sys, time
import psutil
from types import SimpleNamespace
from bench.site import Site

def is_at_work(code):
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    site = Site(None, False, 0, False, psutil.Process(process.pid), 0.0)
    try:
        return {site.is_at_work() for _ in range(200) if not time.sleep(0.001)}
    finally:
        process.kill()
        process.communicate()

print(is_at_work("print(flush=True)\\nwhile True: pass"))
print(False in is_at_work("import time; print(flush=True); time.sleep(60)"))
"""


def test_a_server_that_waits_for_a_core_is_at_work() -> None:
    assert script(WORKING).split() == ["{True}", "True"]


INTERRUPTED = """
import os, pathlib, signal, subprocess, sys
from bench.machine import running

begin = subprocess.Popen

def interrupted(*arguments, **options):
    process = begin(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return process

subprocess.Popen = interrupted
with running(["sleep", "60"], os.sched_getaffinity(0), pathlib.Path(sys.argv[1])):
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
        wait_until(lambda: any(map(processes_in, tmp_path.glob(f"*/one/{OURS}-0"))))
        (folder,) = tmp_path.glob(f"*/one/{OURS}-0")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (130, "bench: interrupted\n")
    assert processes_in(folder) == set()
    assert list(tmp_path.iterdir()) == []
