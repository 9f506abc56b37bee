"""The benchmark runs, and measures what it says. No speed is promised here."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.servers import OURS, PYTHON, SERVERS
from tests.support import ROOT
from tests.support.processes import processes_in
from tests.support.waiting import PATIENCE, wait_until


def run(
    *arguments: str, how: str = "-mbench", python: Path | str = sys.executable, **env: str
) -> tuple[int, str, str]:
    done = subprocess.run(
        # A shell that runs the tests in the background has them ignore Ctrl-C.
        ["/usr/bin/env", "--default-signal=INT", str(python), how, *arguments],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def test_what_keeps_it_from_running_is_one_line(tmp_path: Path) -> None:
    said = "bench: wrk makes the load, and is not installed: apt-get install wrk\n"
    assert run(PATH=str(tmp_path)) == (1, "", said)
    for flag in ("--rounds=0", "--seconds=-1", "--only=nobody", "dance", "--fast"):
        status, out, err = run(flag)
        assert (status, out, err.count("\n"), err[:7]) == (2, "", 1, "bench: ")


def test_one_command_of_the_documentation_installs_every_tool() -> None:
    text = (ROOT / "docs/performance.md").read_text()
    [command] = [line for line in text.splitlines() if line.startswith("$ apt-get update")]
    packages = " ".join(server.package.removeprefix("apt-get install ") for server in SERVERS)
    assert {*packages.split(), "wrk", "nghttp2-client"} <= set(command.split())
    assert command.endswith("&& make bench")


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
    assert (status, err) == (0, ""), err
    return out


HELD = """
import socket
from bench.machine import held_port

with held_port() as port:
    place = ("127.0.0.1", port)
    print(socket.socket().connect_ex(place))
    try:
        socket.socket().bind(place)  # as a program that does not know of it
    except OSError:
        print("held")
    with socket.create_server(place):
        print(socket.socket().connect_ex(place))
"""


def test_a_port_is_held_until_its_server_listens() -> None:
    assert script(HELD).split() == [f"{errno.ECONNREFUSED}", "held", "0"]


LOADED = """
import os, pathlib, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from bench.load import Load, loading
from bench.results import KEPT, NEW, OPEN

class Page(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    connections, requests, turn = 0, 0, threading.Lock()

    def setup(self):
        super().setup()
        Page.connections += 1

    def do_GET(self):
        with Page.turn:
            Page.requests += 1
            if stalls and Page.requests == 200:
                time.sleep(0.4)
        self.send_response(200)
        self.send_header("Connection", self.headers.get("Connection", "keep-alive"))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass

stalls = sys.argv[2] == "OPEN"
load = Load.open(next(iter(OPEN)), 400) if stalls else Load(4, eval(sys.argv[2]))
server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
server.handle_error = lambda *_: None  # wrk leaves before its last answers
threading.Thread(target=server.serve_forever, daemon=True).start()
site = SimpleNamespace(url="http://127.0.0.1:%d/" % server.server_port)
cores = frozenset(os.sched_getaffinity(0))
with loading(site, load, 2, cores, pathlib.Path(sys.argv[1])) as one:
    while Page.connections < load.connections or Page.requests < 100:
        time.sleep(0.01)
    one.stop()
    found = one.outcome()
print(found.requests, Page.connections, found.seconds, found.p99, sum(found.errors.values()))
"""


def loaded(folder: Path, kind: str) -> list[float]:
    """Return the requests, connections, seconds, 99th percentile in ms and errors of a load."""
    return [float(word) for word in script(LOADED, str(folder), kind).split()]


def test_an_open_loop_goes_on_while_the_server_stands_still(tmp_path: Path) -> None:
    requests, _, seconds, p99, errors = loaded(tmp_path, "OPEN")
    assert (requests, errors) == (800, 0)
    assert seconds > 1.9  # 400 a second, and no faster
    # Of 2 s it stood still for 0.4, so a tenth of the requests waited for half of that or more.
    assert p99 > 300


def test_each_request_has_a_connection_of_its_own_where_that_is_measured(tmp_path: Path) -> None:
    requests, connections, *_, errors = loaded(tmp_path, "NEW")
    assert errors == 0
    assert connections > 0.9 * requests > 40
    requests, connections, *_ = loaded(tmp_path, "KEPT")
    assert requests > 10 > connections


CORES = """
from bench import machine
for cores in ([0, 1, 2, 5], [0, 3]):
    machine._CORES = cores
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


MEASURED = """
import os, pathlib, sys
from bench import run
from bench.machine import BenchError, Cores
from bench.results import Results
from bench.servers import BY_NAME, OURS

folder, found, measure = pathlib.Path(sys.argv[1]), Results(rounds=1), run.measure

def measured(now, sites, *arguments, redis=None):
    url = (redis or now.redis).url
    print(sites[0].server.name, url, len(now.cores.server), len(sites[0].tree()))
    return measure(now, sites, *arguments, redis=redis)

run.measure, run.SCALE_ROUNDS = measured, 1
"""

FAR = f"""{MEASURED}
run.DISTANCES, run.FAR = (0,), {{"tornado": 8, OURS: 8}}
with run.bench(0.2, folder / "one") as now:
    run.distance(now, found)
"""


def test_a_server_and_its_peer_do_not_share_a_redis(tmp_path: Path) -> None:
    """Late visits of one would count for the other."""
    seen = {tuple(line.split()[:2]) for line in script(FAR, str(tmp_path)).splitlines()}
    assert sorted(name for name, _ in seen) == [OURS, "tornado"]
    assert len({url for _, url in seen}) == 2


TWO = f"""{MEASURED}
class Two(frozenset):  # as if there were cores enough
    __len__ = lambda self: 2

def split(servers):
    if sys.argv[2] == "few":
        raise BenchError("too few")
    every = sorted(os.sched_getaffinity(0))
    return Cores(Two(every) if servers == 2 else frozenset(every[:1]), frozenset(every))

run.split_cores = split
run.two_processes(0.2, folder, [BY_NAME[OURS]], found)
print([row.processes for row in found.processes], found.skipped)
"""


def test_two_processes_are_measured_where_there_are_cores_for_them_and_else_named(
    tmp_path: Path,
) -> None:
    *seen, rows = script(TWO, str(tmp_path), "enough").splitlines()
    assert rows == "[1, 2] []"
    number = [tuple(map(int, one.split()[2:])) for one in seen]
    assert all(processes >= cores for cores, processes in number)
    assert (1, 1) in number
    assert {cores for cores, _ in number} == {1, 2}
    (said,) = script(TWO, str(tmp_path), "few").splitlines()
    assert said == "[] ['Two server processes on two cores: too few.']"


WORKING = """
import subprocess, sys
import psutil
from bench.site import Site

def is_at_work(process):
    return Site(None, False, 0, False, psutil.Process(process.pid), 0.0).is_at_work()

rests = subprocess.Popen(["sleep", "60"])
code = "print(flush=True)\\nwhile True: pass"
works = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
try:
    works.stdout.readline()
    print({is_at_work(works) for _ in range(200)})
    while is_at_work(rests):
        pass
finally:
    rests.kill()
    works.kill()
"""


def test_a_server_that_waits_for_a_core_is_at_work() -> None:
    assert script(WORKING) == "{True}\n"


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
    _, _, err = run(INTERRUPTED, str(tmp_path), how="-c", python=PYTHON)
    left = processes_in(tmp_path)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert "KeyboardInterrupt" in err
    assert not left


def test_ctrl_c_is_one_line_and_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
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
