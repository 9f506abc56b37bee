"""One container: the page, Redis on its network, its limits, its health, its end."""

import json
import re
import sys
import time
from pathlib import Path

from tests.container.conftest import Figure, Run
from tests.container.engine import (
    RUN,
    Container,
    command,
    counted,
    docker,
    first_page,
    number,
    succeeds,
)
from tests.support import ROOT
from tests.support.page import OFF
from tests.support.waiting import BUSY, wait_until

#: As the README has it, on a port that the engine picks.
PUBLISH = "--publish=127.0.0.1::80"

#: What the program runs under in compose.yaml, too.
HARDENED = (
    *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *("--memory=96m", "--pids-limit=64"),
)


def start_redis(run: Run, redis_image: str, network: str, *flags: str) -> Container:
    named = (f"--network={network}", "--network-alias=redis", *flags)
    return run(redis_image, *named, command=("redis-server", "--appendonly", "yes"))


def timed(url: str) -> tuple[int | None, float]:
    began = time.monotonic()
    return number(url), time.monotonic() - began


def test_without_redis_it_greets_at_once_and_is_healthy_until_it_hangs(
    image: str, run: Run, figure: Figure
) -> None:
    began = time.monotonic()
    more = ("--env=NAME=Ada <3", "--cpus=1", "--env=PROCESSES=0")
    web = run(image, PUBLISH, "--env=REDIS_TIMEOUT=10", *more)
    greeting = f"<h3>Hello Ada &lt;3!</h3><b>Hostname:</b> {web.short_id}<br/>"
    assert first_page(web.url) == f"{greeting}<b>Visits:</b> {OFF}"
    assert max(timed(web.url)[1] for _ in range(5)) < 10 / 2
    wait_until(lambda: "counter off: cannot resolve redis" in web.logs())
    wait_until(lambda: web.health == "healthy")
    figure("healthy after", f"{time.monotonic() - began:.1f} s")
    assert web.state["Health"]["Log"][0]["ExitCode"] == 0, "not at the first"
    # Its quota of CPU says how many processes it starts.
    # Process 1 and the server; now and then the health check is there as well.
    wait_until(lambda: len(docker("top", web.id, "-o", "pid").splitlines()) == 1 + 2)
    # What a command in it leaves behind is reaped.
    orphan = "if os.fork() == 0: os.fork() and os._exit(0)"
    for _ in range(10):
        web.exec("python", "-c", f"import os\n{orphan}")
    states = r"cat /proc/[0-9]*/stat | grep -c ') Z ' || true"
    wait_until(lambda: web.exec("sh", "-c", states) == "0")

    # The server is the child of process 1.
    web.exec("sh", "-c", "kill -STOP $(cut -d' ' -f1 /proc/1/task/1/children)")
    began = time.monotonic()
    wait_until(lambda: web.health == "unhealthy")
    figure("unhealthy, when it hangs, after", f"{time.monotonic() - began:.1f} s")


def test_it_counts_through_a_restart_of_redis_under_another_address(
    image: str, redis_image: str, run: Run, network: str, figure: Figure
) -> None:
    database = start_redis(run, redis_image, network, f"--volume={RUN}-data:/data")
    web = run(image, PUBLISH, f"--network={network}", "--env=REDIS_TIMEOUT=4")
    last = counted(web.url)
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
    assert counted(web.url) == last + 6
    seconds = time.monotonic() - began
    figure("Redis back, counting again after", f"{seconds:.1f} s")
    assert seconds < 2 + BUSY


def test_it_holds_64_connections_read_only_without_rights_in_96_mb(
    image: str, redis_image: str, run: Run, network: str, figure: Figure
) -> None:
    start_redis(run, redis_image, network)
    web = run(image, PUBLISH, f"--network={network}", *HARDENED, "--env=REDIS_TIMEOUT=20")
    load = ("--wait=40", "--requests=5000", "--concurrency=64", "--keep-alive", "--exclusive")
    check = (sys.executable, str(ROOT / "check.py"), web.url, "--json", *load)
    told = command(*check, seconds=160)
    assert json.loads(told)["replicas"] == {web.short_id: 5000}
    used = docker("stats", "--no-stream", "--format={{.MemUsage}}", web.id)
    figure("memory after 5,000 visits on 64 connections", used)
    status = web.exec("cat", "/proc/1/status")
    for line in (r"CapEff:\s0+", r"CapBnd:\s0+", r"NoNewPrivs:\s1"):
        assert re.search(f"^{line}$", status, re.MULTILINE), line
    assert (web.state["OOMKilled"], web.state["Running"]) == (False, True)


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
    for words in ((), ("python", "server.py", "--healthcheck")):
        web = run(image, *before, command=words)
        wait_until(lambda web=web: "importing" in web.logs())
        assert web.stop() < 1 + BUSY
        assert web.state["ExitCode"] == 0


def test_its_first_page_comes_before_that_of_the_guides_app_and_it_stops_where_that_is_killed(
    image: str, guide_image: str, run: Run, figure: Figure
) -> None:
    times: dict[str, list[float]] = {image: [], guide_image: []}
    for _ in range(3):  # in turn, as a machine is not as busy all the time
        for one, seconds in times.items():
            began = time.monotonic()
            last = run(one, PUBLISH)
            first_page(last.url)
            seconds.append(time.monotonic() - began)
    ours, guides = times.values()
    figure("docker run to the first page", f"{min(ours):.2f} s, the guide's {min(guides):.2f} s")
    assert min(ours) < min(guides)
    theirs = last.stop()
    web = run(image, PUBLISH)
    first_page(web.url)
    ended = web.stop()
    figure("docker stop", f"{ended:.2f} s, the guide's app {theirs:.2f} s")
    assert ended < 1 + BUSY
    assert (web.state["ExitCode"], last.state["ExitCode"]) == (0, 137), web.logs()
