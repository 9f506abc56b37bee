"""The measurements of a run, in their order."""

import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.certificate import make_certificate
from bench.load import Load, loading
from bench.machine import BenchError, raise_limits, split_cores
from bench.measure import measure, warm_up
from bench.results import HTTPS, NEW, OPEN, InProcess, Results, Row, Start
from bench.servers import BY_NAME, HERE, OURS, PATH, PEERS, ROOT, Server, lacks
from bench.site import Bench, Site, serving, traffic
from bench.store import Redis, far_away, redis_running, round_trip

LEVELS = (1, 8, 64, 512)
"""Numbers of connections in the main measurements."""
FEW_LEVELS = (64,)
"""Numbers of connections for a server's variant with a log, and for a server without visits."""
MOST = 4096
WIDE = (OURS, "go", "nginx")
"""The servers that are measured with `MOST` connections too, and with two processes."""
FRESH = (OURS, "blacksheep", "aiohttp", "sanic", "node", "go", "nginx")
"""The servers that are measured with a new connection for each request."""
FIRST = 3
"""How many of the fastest servers are measured in an open loop."""

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


@contextlib.contextmanager
def bench(seconds: float, folder: Path, cores: int = 1) -> Iterator[Bench]:
    """Choose the cores and start Redis.

    :arg seconds: how long each measurement takes.
    :arg folder: for the logs.
    :arg cores: how many cores the server gets.
    """
    raise_limits()
    split = split_cores(cores)
    os.sched_setaffinity(0, split.load)
    with redis_running(split, folder / "redis") as redis:
        yield Bench(split, redis, folder, seconds, make_certificate(folder))


def main_rounds(run: Bench, servers: Sequence[Server], rounds: int, results: Results) -> None:
    """Measure every server in turn, again and again, so that a slow moment hits all of them."""
    for round_ in range(1, rounds + 1):
        for server in servers:
            for log in server.variants:
                with serving(run, server, log) as site:
                    results.starts.append(Start(server.name, log, round_, site.first_page))
                    rows = list(_rows(run, site, round_))
                results.rows += rows
                at_64 = next(row for row in rows if row.connections == 64)
                _say(round_, rounds, f"{server.name}, log {'on' if log else 'off'}", at_64)
            if server.tls is not None:
                with serving(run, server, https=True) as site:
                    warm_up(run, [site], 64)
                    results.rows.append(measure(run, [site], Load(64, HTTPS), round_))
                _say(round_, rounds, f"{server.name}, HTTPS", results.rows[-1])


def _say(round_: int, rounds: int, what: str, row: Row) -> None:
    print(f"round {round_}/{rounds}  {what:24} {row.rate:9,.0f}/s", flush=True)


def _rows(run: Bench, site: Site, round_: int) -> Iterator[Row]:
    server = site.server
    main = site.log == server.always_logs
    warm_up(run, [site], 64)
    for connections in LEVELS if main and server.counts else FEW_LEVELS:
        if connections > 64:
            warm_up(run, [site], connections)
        yield measure(run, [site], connections, round_)
    if main and server.name in FRESH:
        yield measure(run, [site], Load(64, NEW), round_)
    if main and server.name in WIDE:
        warm_up(run, [site], MOST)
        yield measure(run, [site], MOST, round_, _longer(run, MOST))


def open_loop(run: Bench, results: Results) -> None:
    """Measure the fastest servers, and friendlyhello, with requests at a fixed rate."""
    if lacks(["h2load"]):
        results.skipped.append(
            "An open loop: it needs h2load, which is not installed: apt-get install nghttp2-client."
        )
        return
    ranking = results.ranking(False)
    first = ranking[:FIRST]
    if not first:
        return
    most = min(results.median("rate", name, False) for name in first)
    for round_ in range(1, results.rounds + 1):
        for name in dict.fromkeys([*first, *({OURS} & {*ranking})]):
            with serving(run, BY_NAME[name]) as site:
                warm_up(run, [site], 512)
                for kind, share in OPEN.items():
                    row = measure(run, [site], Load.open(kind, share * most), round_)
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
    paired = [server for server in servers if server.name in WIDE]
    for cores in (1, 2):
        with bench(seconds, folder / f"cores-{cores}", cores) as run:
            for round_ in range(1, SCALE_ROUNDS + 1):
                for server in paired:
                    with serving(run, server) as site:
                        warm_up(run, [site], 512)
                        row = measure(run, [site], 512, round_)
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
    with serving(run, BY_NAME[OURS]) as site:
        results.traffic = traffic(site)
        warm_up(run, [site], 64)
        for round_ in range(1, SCALE_ROUNDS + 1):
            for number in GROWTH:
                row = measure(run, [site], number, round_, _longer(run, number))
                results.growth.append(row)


def distance(run: Bench, results: Results) -> None:
    """Measure friendlyhello, and a plain peer, with Redis further and further away, in turn."""
    with contextlib.ExitStack() as stack:
        places = []
        for added, (name, connections) in itertools.product(DISTANCES, FAR.items()):
            folder = run.folder / f"{name}-far-{added}"
            redis = stack.enter_context(redis_running(run.cores, folder / "redis"))
            far = stack.enter_context(far_away(redis, added, run.cores, folder / "proxy"))
            trip = round_trip(far)
            site = stack.enter_context(serving(run, BY_NAME[name], redis=far, number=added))
            warm_up(run, [site], connections, redis)
            places.append((site, redis, connections, added, trip))
        for round_ in range(1, results.rounds + 1):
            for site, redis, connections, added, trip in places:
                row = measure(run, [site], connections, round_, redis=redis)
                results.distance.append(replace(row, distance=float(added), round_trip=trip))


def many_servers(run: Bench, results: Results) -> None:
    """Measure more and more servers, all on the same core, with one Redis."""
    proxy = far_away(run.redis, MANY_DISTANCE, run.cores, run.folder / "proxy")
    with proxy as far, contextlib.ExitStack() as stack:
        trip = round_trip(far)
        sites: list[Site] = []
        for number in MANY:
            while len(sites) < number:
                site = serving(run, BY_NAME[OURS], redis=far, number=len(sites))
                sites.append(stack.enter_context(site))
            warm_up(run, sites, MANY_CONNECTIONS)
            for round_ in range(1, SCALE_ROUNDS + 1):
                row = measure(run, sites, MANY_CONNECTIONS, round_)
                row = replace(row, distance=float(MANY_DISTANCE), round_trip=trip)
                results.servers.append(row)


def versions(redis: Redis) -> dict[str, str]:
    """Return the versions of the measured programs, and of the programs that measure."""
    server = redis.client.info("server")
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
    folder = run.folder / "load"
    with serving(run, server) as site, loading(site, Load(64), seconds, run.cores.load, folder):
        site.process.wait(seconds + 30)
