"""The measurements of a run, in their order."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.certificate import Certificate, make_certificate
from bench.load import Load
from bench.machine import BenchError, Cores, raise_limits, running, split_cores
from bench.measure import measure
from bench.results import HTTPS, NEW, OPEN, InProcess, Results, Row
from bench.servers import BY_NAME, HERE, OURS, PATH, PEERS, ROOT, Server, lacks
from bench.site import Site, serving, traffic
from bench.store import Redis, far_away, redis_running, round_trip

LEVELS = (1, 8, 64, 512)
"""Numbers of connections in the main measurements."""
FEW_LEVELS = (64,)
"""Numbers of connections for a server's variant with a log, and for a server without visits."""
MOST = 4096
WIDE = (OURS, "go", "nginx")
"""The servers that are measured with `MOST` connections too."""
FRESH = (OURS, "blacksheep", "aiohttp", "sanic", "node", "go", "nginx")
"""The servers that are measured with a new connection for each request."""
FIRST = 3
"""How many of the fastest servers are measured in an open loop."""
PAIRED = (OURS, "go", "nginx")
"""The servers that are measured with two processes on two cores."""

GROWTH = (1, 4, 16, 64, 256, 1024, 4096)
DISTANCES = (0, 1, 5, 20)
"""Milliseconds of round trip to Redis."""
FAR = {OURS: 2048, "aiohttp": 1024}
"""The servers that are measured at a distance, and their numbers of connections.

With friendlyhello, half of the visitors wait for one reply of Redis, and half for the next. Fewer
visitors could not keep a core busy at the longest distance. The peer has a connection to Redis for
each visitor, and its pool has no more connections than this.
"""
MANY = (1, 2, 4, 8)
"""Numbers of servers on one Redis. They share `MANY_CONNECTIONS`, at `MANY_DISTANCE` from Redis."""
MANY_CONNECTIONS, MANY_DISTANCE = 512, 1
SCALE_ROUNDS = 2

PACKAGES = (
    *("tornado", "httptools", "uvloop", "redis", "hiredis", "flask", "gunicorn", "fastapi"),
    *("uvicorn", "starlette", "aiohttp", "sanic", "blacksheep", "granian"),
)
PROGRAMS = {
    "wrk": ("wrk", "-v"),
    "h2load": ("h2load", "--version"),
    "Node.js": (str(PEERS / "node/newest"), "--version"),
    "Go": ("go", "version"),
    "nginx": ("nginx", "-v"),
}


@dataclass
class Bench:
    """One run, in a folder for its logs; `bench` makes it."""

    cores: Cores
    redis: Redis
    folder: Path
    seconds: float
    """How long each measurement takes."""
    certificate: Certificate

    def serving(
        self, server: Server, log: bool, redis: Redis | None = None, number: int = 0
    ) -> contextlib.AbstractContextManager[Site]:
        """Run a server.

        :arg number: tells apart several servers of the same kind.
        """
        folder = self.folder / f"{server.name}-{number}"
        return serving(server, log, (redis or self.redis).url, self.cores.server, folder)

    def serving_https(self, server: Server) -> contextlib.AbstractContextManager[Site]:
        """Run a server that does not log, for HTTPS."""
        folder = self.folder / f"{server.name}-https"
        return serving(server, False, self.redis.url, self.cores.server, folder, self.certificate)

    def another_redis(self, name: str) -> contextlib.AbstractContextManager[Redis]:
        """Run one more Redis, for a server that others run beside."""
        return redis_running(self.cores, self.folder / f"redis-{name}")

    def far_away(
        self, milliseconds: int, redis: Redis | None = None
    ) -> contextlib.AbstractContextManager[Redis]:
        """Put a proxy that delays replies in front of Redis."""
        return far_away(redis or self.redis, milliseconds, self.cores, self.folder / "proxy")

    def measure(
        self,
        sites: Sequence[Site],
        load: int | Load,
        round_: int,
        seconds: float | None = None,
        redis: Redis | None = None,
    ) -> Row:
        """Load servers of a kind.

        :arg load: a load, or the number of kept connections.
        :arg redis: in which only these servers count: late visits of other servers would count for
            these.
        """
        load = Load(load) if isinstance(load, int) else load
        seconds, redis = seconds or self.seconds, redis or self.redis
        return measure(sites, redis, self.cores, load, seconds, round_, self.folder)

    def warm_up(self, sites: Sequence[Site], connections: int, redis: Redis | None = None) -> None:
        """Let servers fill their caches and open their connections to Redis."""
        seconds = min(self.seconds, 0.2 + connections / 1000)
        self.measure(sites, connections, 0, seconds, redis)


@contextlib.contextmanager
def bench(seconds: float, folder: Path, cores: int = 1) -> Iterator[Bench]:
    """Choose the cores and start Redis.

    :arg seconds: how long each measurement takes.
    :arg folder: for the logs; it is created.
    :arg cores: how many cores the server gets.
    """
    raise_limits()
    split = split_cores(cores)
    os.sched_setaffinity(0, split.load)
    folder.mkdir(exist_ok=True)
    with redis_running(split, folder / "redis") as redis:
        yield Bench(split, redis, folder, seconds, make_certificate(folder))


def main_rounds(run: Bench, servers: Sequence[Server], rounds: int, results: Results) -> None:
    """Measure every server in turn, again and again, so that a slow moment hits all of them."""
    for round_ in range(1, rounds + 1):
        for server in servers:
            for log in server.variants:
                with run.serving(server, log) as site:
                    results.starts.append(site.start(round_))
                    rows = list(_rows(run, site, round_))
                results.rows += rows
                at_64 = next(row for row in rows if row.connections == 64)
                _say(round_, rounds, f"{server.name}, log {'on' if log else 'off'}", at_64)
            if server.tls is not None:
                with run.serving_https(server) as site:
                    run.warm_up([site], 64)
                    row = run.measure([site], Load(64, HTTPS), round_)
                results.rows.append(row)
                _say(round_, rounds, f"{server.name}, HTTPS", row)


def _say(round_: int, rounds: int, what: str, row: Row) -> None:
    print(f"round {round_}/{rounds}  {what:24} {row.rate:9,.0f}/s", flush=True)


def _rows(run: Bench, site: Site, round_: int) -> Iterator[Row]:
    server = site.server
    main = site.log == next(iter(server.variants))
    run.warm_up([site], 64)
    for connections in LEVELS if main and server.counts else FEW_LEVELS:
        if connections > 64:
            run.warm_up([site], connections)
        yield run.measure([site], connections, round_)
    if main and server.name in FRESH:
        yield run.measure([site], Load(64, NEW), round_)
    if main and server.name in WIDE:
        run.warm_up([site], MOST)
        yield run.measure([site], MOST, round_, _longer(run, MOST))


def open_loop(run: Bench, results: Results) -> None:
    """Measure the fastest servers, and friendlyhello, with requests at a fixed rate."""
    if lacks(["h2load"]):
        results.skipped.append(
            "An open loop: it needs h2load, which is not installed: apt-get install nghttp2-client."
        )
        return
    first = results.ranking(False)[:FIRST]
    names = [*first, *({OURS} & {row.server for row in results.rows} - set(first))]
    if not names:
        return
    most = min(results.median("rate", name, False, 64) for name in first)
    for round_ in range(1, results.rounds + 1):
        for name in names:
            with run.serving(BY_NAME[name], False) as site:
                run.warm_up([site], 512)
                for kind, share in OPEN.items():
                    row = run.measure([site], Load.open(kind, share * most), round_)
                    results.rows.append(row)
                    _say(round_, results.rounds, f"{name}, {kind}", row)


def two_processes(
    seconds: float, folder: Path, servers: Sequence[Server], results: Results
) -> None:
    """Measure servers with one process, and then with two processes, each on a core of its own.

    This needs a third core for the load.
    """
    try:
        split_cores(2)
    except BenchError as error:
        results.skipped.append(f"Two server processes on two cores: {error}.")
        return
    paired = [server for server in servers if server.name in PAIRED]
    for cores in (1, 2):
        with bench(seconds, folder / f"cores-{cores}", cores) as run:
            for round_ in range(1, SCALE_ROUNDS + 1):
                for server in paired:
                    with run.serving(server, False) as site:
                        run.warm_up([site], 512)
                        row = run.measure([site], 512, round_)
                        results.processes.append(replace(row, processes=cores))


def _longer(run: Bench, connections: int) -> float:
    """Return the seconds of a measurement, with the time to open so many connections."""
    return run.seconds + connections / 2000


def page_in_process(run: Bench, results: Results) -> None:
    """Measure friendlyhello's page without the system, with the server's own Python.

    :raises BenchError: when the server does not serve its page in process.
    """
    command = [str(ROOT / ".venv/bin/python"), "-m", "bench.page", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{shlex.join(command[1:])} failed: {done.stderr.strip()}")
    results.pages = [InProcess(**row) for row in json.loads(done.stdout)]


def growth(run: Bench, results: Results) -> None:
    """Measure friendlyhello with more and more connections."""
    with run.serving(BY_NAME[OURS], False) as site:
        results.traffic = traffic(site)
        run.warm_up([site], 64)
        for round_ in range(1, SCALE_ROUNDS + 1):
            for number in GROWTH:
                row = run.measure([site], number, round_, _longer(run, number))
                results.growth.append(row)


def distance(run: Bench, results: Results) -> None:
    """Measure friendlyhello, and a plain peer, with Redis further and further away, in turn."""
    with contextlib.ExitStack() as stack:
        places = []
        for milliseconds in DISTANCES:
            for name, connections in FAR.items():
                redis = stack.enter_context(run.another_redis(f"{name}-{milliseconds}"))
                far = stack.enter_context(run.far_away(milliseconds, redis))
                added, measured = float(milliseconds), round_trip(far)
                site = stack.enter_context(run.serving(BY_NAME[name], False, far, milliseconds))
                run.warm_up([site], connections, redis)
                places.append((site, redis, connections, added, measured))
        for round_ in range(1, results.rounds + 1):
            for site, redis, connections, added, measured in places:
                row = run.measure([site], connections, round_, redis=redis)
                results.distance.append(replace(row, distance=added, round_trip=measured))


def many_servers(run: Bench, results: Results) -> None:
    """Measure more and more servers, all on the same core, with one Redis."""
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


def versions(redis: Redis) -> dict[str, str]:
    """Return the versions of the measured programs, and of the programs that measure."""
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

    :arg seconds: how long to sample.
    :arg output: the SVG file to write.
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
