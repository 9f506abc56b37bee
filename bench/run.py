"""What is measured, in which order."""

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench.measure import (
    Cores,
    Redis,
    Site,
    far_away,
    measure,
    raise_limits,
    redis_running,
    round_trip,
    running,
    serving,
    split_cores,
    traffic,
)
from bench.results import Results, Row
from bench.servers import BY_NAME, HERE, OURS, PATH, Server

LEVELS = (1, 8, 64, 512)
"""Connections of the main measurements."""
LOGGED_LEVELS = (64,)
"""Those of a server that logs where it need not."""

GROWTH = (1, 4, 16, 64, 256, 1024, 4096)
DISTANCES = (0, 1, 5, 20)
"""Milliseconds of round trip to Redis."""
FAR = {OURS: 2048, "aiohttp": 1024}
"""Who is measured at a distance, with how many connections.

Of friendlyhello's visitors half wait for one reply and half for the next, so that at the longest
distance fewer could not ask for what a core can do. The peer's pool of connections to Redis, one
for each visitor, holds no more than so many.
"""
MANY = (1, 2, 4, 8)
"""Servers on one Redis, which share so many connections, at so many milliseconds from it."""
MANY_CONNECTIONS, MANY_DISTANCE = 512, 1
SCALE_ROUNDS = 2

PACKAGES = (
    *("tornado", "httptools", "uvloop", "redis", "hiredis", "flask", "gunicorn", "fastapi"),
    *("uvicorn", "starlette", "aiohttp", "sanic"),
)
PROGRAMS = {
    "wrk": ("wrk", "-v"),
    "Node.js": ("node", "--version"),
    "Go": ("go", "version"),
    "nginx": ("nginx", "-v"),
}


@dataclass
class Bench:
    """One run, in a folder for its logs; use `bench`."""

    cores: Cores
    redis: Redis
    folder: Path
    seconds: float
    """How long each measurement goes on."""

    def serving(
        self, server: Server, log: bool, redis: Redis | None = None, number: int = 0
    ) -> contextlib.AbstractContextManager[Site]:
        """Run a server; several of a kind have different numbers."""
        folder = self.folder / f"{server.name}-{number}"
        return serving(server, log, (redis or self.redis).url, self.cores, folder)

    def far_away(self, milliseconds: int) -> contextlib.AbstractContextManager[Redis]:
        """Put a network in front of Redis."""
        return far_away(self.redis, milliseconds, self.cores, self.folder / "proxy")

    def measure(
        self, sites: Sequence[Site], connections: int, round_: int, seconds: float | None = None
    ) -> Row:
        """Load servers of a kind."""
        seconds = seconds or self.seconds
        return measure(sites, self.redis, self.cores, connections, seconds, round_, self.folder)

    def warm_up(self, sites: Sequence[Site], connections: int) -> None:
        """Let servers open what they open once: caches, and connections to Redis."""
        self.measure(sites, connections, 0, min(self.seconds, 0.2 + connections / 1000))


@contextlib.contextmanager
def bench(seconds: float, folder: Path) -> Iterator[Bench]:
    """Choose the cores and start Redis."""
    raise_limits()
    cores = split_cores()
    with redis_running(cores, folder / "redis") as redis:
        yield Bench(cores, redis, folder, seconds)


def main_rounds(run: Bench, servers: Sequence[Server], rounds: int, results: Results) -> None:
    """Measure every server in turn, again and again, so that a slow moment hits all alike."""
    for round_ in range(1, rounds + 1):
        for server in servers:
            for log in server.variants:
                main = log == next(iter(server.variants))
                with run.serving(server, log) as site:
                    results.starts.append(site.start(round_))
                    rows = list(_levels(run, site, LEVELS if main else LOGGED_LEVELS, round_))
                results.rows += rows
                at_64 = next(row for row in rows if row.connections == 64)
                title = f"{server.name}, log {'on' if log else 'off'}"
                print(f"round {round_}/{rounds}  {title:24} {at_64.rate:9,.0f}/s", flush=True)


def _levels(run: Bench, site: Site, levels: Sequence[int], round_: int) -> Iterator[Row]:
    run.warm_up([site], 64)
    for connections in levels:
        if connections > 64:
            run.warm_up([site], connections)
        yield run.measure([site], connections, round_)


def growth(run: Bench, results: Results) -> None:
    """Measure friendlyhello with more and more connections."""
    with run.serving(BY_NAME[OURS], False) as site:
        results.traffic = traffic(site)
        run.warm_up([site], 64)
        for round_ in range(1, SCALE_ROUNDS + 1):
            for number in GROWTH:
                longer = run.seconds + number / 2000  # as the connections are opened in it
                results.growth.append(run.measure([site], number, round_, longer))


def distance(run: Bench, results: Results) -> None:
    """Measure friendlyhello, and a plain peer, with Redis further and further away, in turn."""
    with contextlib.ExitStack() as stack:
        places = []
        for milliseconds in DISTANCES:
            far = stack.enter_context(run.far_away(milliseconds))
            measured = round_trip(far)
            for name, connections in FAR.items():
                site = stack.enter_context(run.serving(BY_NAME[name], False, far, milliseconds))
                run.warm_up([site], connections)
                places.append((site, connections, float(milliseconds), measured))
        for round_ in range(1, results.rounds + 1):
            for site, connections, added, measured in places:
                row = run.measure([site], connections, round_)
                results.distance.append(replace(row, distance=added, round_trip=measured))


def many_servers(run: Bench, results: Results) -> None:
    """Measure more and more servers, all on the one core, with one Redis."""
    with run.far_away(MANY_DISTANCE) as far, contextlib.ExitStack() as stack:
        measured = round_trip(far)
        sites: list[Site] = []
        for number in MANY:
            while len(sites) < number:
                site = run.serving(BY_NAME[OURS], False, far, len(sites))
                sites.append(stack.enter_context(site))
            run.warm_up(sites, MANY_CONNECTIONS)
            for round_ in range(1, SCALE_ROUNDS + 1):
                row = run.measure(sites, MANY_CONNECTIONS, round_)
                results.servers.append(
                    replace(row, distance=float(MANY_DISTANCE), round_trip=measured)
                )


def machine() -> dict[str, str]:
    """Describe the machine, without naming it."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions(redis: Redis) -> dict[str, str]:
    """Return the versions of what is measured, and measured with."""
    server = redis.info("server")
    found = {
        "Python": platform.python_version(),
        "Valkey": str(server.get("valkey_version") or server["redis_version"]),
    }
    for name, command in PROGRAMS.items():
        with contextlib.suppress(OSError):
            done = subprocess.run(
                command, capture_output=True, text=True, env=os.environ | {"PATH": PATH}
            )
            if match := re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr):
                found[name] = match[0]
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def profile(run: Bench, seconds: float, output: Path) -> None:
    """Draw a flame graph of friendlyhello under the load of 64 connections.

    :arg seconds: how long it is looked at.
    """
    spy = (
        *(str(HERE / ".venv/bin/py-spy"), "record", "--rate=250", f"--duration={seconds:.0f}"),
        *(f"--output={output}", "--"),
    )
    server = replace(BY_NAME[OURS], command=spy + BY_NAME[OURS].command)
    with run.serving(server, False) as site:
        wrk = ("wrk", "--threads=1", "--connections=64", f"--duration={seconds + 1:.0f}s")
        load = (*wrk, f"http://127.0.0.1:{site.port}/")
        (run.folder / "wrk").mkdir()
        with running(load, run.cores.load, run.folder / "wrk"):
            site.process.wait(seconds + 30)
