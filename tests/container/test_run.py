"""One container: the page, Redis on its network, its limits, its health, its end."""

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.container.conftest import Figure, Run
from tests.container.engine import Container, docker, first_page, get, succeeds
from tests.support import ROOT
from tests.support.page import BUSY, OFF, number_on
from tests.support.waiting import wait_until

#: As the README has it, on a port that the engine picks.
PUBLISH = "--publish=127.0.0.1::80"

#: What the program runs under in compose.yaml, too.
HARDENED = (
    *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *("--memory=96m", "--pids-limit=64"),
)


def number(url: str) -> int | None:
    """Visit, and return the number."""
    return number_on(get(url).encode())


def counting(
    run: Run, image: str, redis_image: str, network: str, *flags: str, data: tuple[str, ...] = ()
) -> tuple[Container, Container, int]:
    """Start Redis and the program; return both, and the last number that was shown."""
    named = (f"--network={network}", "--network-alias=redis", *data)
    database = run(redis_image, *named, command=("redis-server", "--appendonly", "yes"))
    web = run(image, PUBLISH, f"--network={network}", *flags)
    first_page(web.url)
    wait_until(lambda: number(web.url))
    last = number(web.url)
    assert last is not None
    return database, web, last


def timed(url: str) -> tuple[int | None, float]:
    """Visit, and return the number and how long it took."""
    began = time.monotonic()
    return number(url), time.monotonic() - began


def test_without_redis_it_greets_at_once_and_names_its_container(image: str, run: Run) -> None:
    more = ("--env=NAME=Ada <3", "--cpus=1", "--env=PROCESSES=0")
    web = run(image, PUBLISH, "--env=REDIS_TIMEOUT=10", *more)
    greeting = "<h3>Hello Ada &lt;3!</h3>"
    page = first_page(web.url)
    assert page == f"{greeting}<b>Hostname:</b> {web.short_id}<br/><b>Visits:</b> {OFF}"
    assert max(timed(web.url)[1] for _ in range(5)) < 10 / 2
    wait_until(lambda: "counter off: cannot resolve redis" in web.logs())
    # Its quota of CPU says how many processes it starts.
    # Process 1 and the server; now and then the health check is there as well.
    wait_until(lambda: len(docker("top", web.id, "-o", "pid").splitlines()) == 1 + 2)
    # What a command in it leaves behind is reaped.
    orphan = "if os.fork() == 0: os.fork() and os._exit(0)"
    for _ in range(10):
        web.exec("python", "-c", f"import os\n{orphan}")
    states = r"cat /proc/[0-9]*/stat | grep -c ') Z ' || true"
    wait_until(lambda: web.exec("sh", "-c", states) == "0")


def test_it_counts_through_a_restart_of_redis_under_another_address(
    image: str, redis_image: str, run: Run, network: str, volume: str, figure: Figure
) -> None:
    data = (f"--volume={volume}:/data",)
    flags = (run, image, redis_image, network, "--env=REDIS_TIMEOUT=4")
    database, web, last = counting(*flags, data=data)
    assert [number(web.url) for _ in range(5)] == [*range(last + 1, last + 6)]

    address = database.address
    docker("stop", database.id)
    found, seconds = timed(web.url)  # it looks for Redis once more, while it looks the name up
    assert found is None
    assert seconds < 4 + BUSY
    pages = [timed(web.url) for _ in range(5)]
    assert {found for found, _ in pages} == {None}
    assert max(seconds for _, seconds in pages) < 4 / 2
    run(redis_image, f"--network={network}", command=("sleep", "600"))  # takes its address
    docker("start", database.id)
    wait_until(lambda: succeeds("docker", "exec", database.id, "redis-cli", "ping"))
    began = time.monotonic()
    assert database.address != address
    seen: list[int | None] = []
    wait_until(lambda: seen.append(number(web.url)) or seen[-1])
    seconds = time.monotonic() - began
    figure("Redis back, counting again after", f"{seconds:.1f} s")
    assert seconds < 2 + BUSY
    assert seen[-1] == last + 6


def test_it_holds_64_connections_read_only_without_rights_in_96_mb(
    image: str, redis_image: str, run: Run, network: str, figure: Figure
) -> None:
    flags = (*HARDENED, "--env=REDIS_TIMEOUT=20")
    _, web, _ = counting(run, image, redis_image, network, *flags)
    report = audit(web.url, "--requests=5000", "--concurrency=64", "--keep-alive", "--exclusive")
    assert report["holds"], report
    assert report["replicas"] == {web.short_id: 5000}
    used = docker("stats", "--no-stream", "--format={{.MemUsage}}", web.id)
    figure("memory after 5,000 visits on 64 connections", used)
    status = web.exec("cat", "/proc/1/status")
    assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE)
    assert not web.state["OOMKilled"]
    assert web.state["Running"]


def audit(url: str, *flags: str) -> dict[str, object]:
    """Run check.py, and return its report."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "check.py"), url, "--json", *flags],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_it_turns_healthy_and_unhealthy_when_it_hangs(image: str, run: Run, figure: Figure) -> None:
    web = run(image)
    began = time.monotonic()
    wait_until(lambda: web.health == "healthy")
    figure("healthy after", f"{time.monotonic() - began:.1f} s")
    first, *_ = web.state["Health"]["Log"]
    assert first["ExitCode"] == 0, "not at the first"
    signal_server(web, "STOP")
    began = time.monotonic()
    wait_until(lambda: web.health == "unhealthy")
    figure("unhealthy, when it hangs, after", f"{time.monotonic() - began:.1f} s")
    signal_server(web, "CONT")


def signal_server(web: Container, name: str) -> None:
    """Send a signal to the child of process 1."""
    child = "int(open('/proc/1/task/1/children').read().split()[0])"
    web.exec("python", "-c", f"import os, signal; os.kill({child}, signal.SIG{name})")


def test_it_ends_at_once_while_its_modules_are_imported(
    image: str, run: Run, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('tornado', 'http.client'):\n"
        "            print('importing', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    before = (f"--volume={tmp_path}:/before:ro", "--env=PYTHONPATH=/before")
    for command in ((), ("python", "server.py", "--healthcheck")):
        web = run(image, *before, command=command)
        wait_until(lambda web=web: "importing" in web.logs())
        assert web.stop() < 1 + BUSY
        assert web.state["ExitCode"] == 0


def test_an_idle_one_stops_at_once_where_the_guides_app_is_killed(
    image: str, guide_image: str, run: Run, figure: Figure
) -> None:
    ours, guides = run(image, PUBLISH), run(guide_image, PUBLISH)
    for one in (ours, guides):
        first_page(one.url)
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(guides.stop)
        seconds, theirs = ours.stop(), stopping.result()
    assert ours.state["ExitCode"] == 0, ours.logs()
    assert seconds < 1 + BUSY
    figure("docker stop", f"{seconds:.2f} s, status 0")
    status = guides.state["ExitCode"]
    figure("docker stop of the guide's app", f"{theirs:.2f} s, status {status}")
    assert status == 137


def test_the_first_page_comes_before_that_of_the_guides_app(
    image: str, guide_image: str, run: Run, figure: Figure
) -> None:
    def cold_start(of: str) -> float:
        began = time.monotonic()
        first_page(run(of, PUBLISH).url)
        return time.monotonic() - began

    ours, theirs = [], []
    for _ in range(3):  # in turn, as a machine is not as busy all the time
        ours.append(cold_start(image))
        theirs.append(cold_start(guide_image))
    for name, times in ("docker run to the first page", ours), ("the guide's app", theirs):
        figure(name, ", ".join(f"{one:.2f} s" for one in times))
    assert min(ours) < min(theirs)
