"""The load on a server: wrk, which waits for answers, or h2load, which does not.

wrk sends the next request of a connection when it has the answer to the last one, so it asks for as
much as the server can do. h2load sends requests at a fixed rate even if answers do not come, as
independent visitors do. `bench/README.md` says why the run uses h2load.
"""

import contextlib
import json
import math
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.due import waits
from bench.machine import END, BenchError, last_line, running
from bench.results import KEPT, NEW
from bench.servers import HERE
from bench.site import Site

#: Seconds that wrk waits for an answer.
ANSWER = 15

#: Milliseconds between two requests of an h2load client. Its timer cannot do less than 10.
PERIOD = 12.5

#: Seconds at the beginning of an open loop that do not count: h2load still opens connections.
OPENING = 0.1


@dataclass(frozen=True)
class Load:
    """The load of a measurement."""

    connections: int
    kind: str = KEPT
    """One of the kinds in `bench.results`."""
    due: float = 0.0
    """Requests a second of an open loop; 0 for a closed one."""

    @classmethod
    def open(cls, kind: str, due: float) -> "Load":
        """Return an open loop with the connections that it needs.

        :arg due: requests a second.
        """
        return cls(max(1, math.ceil(due * PERIOD / 1000)), kind, due)


@dataclass(frozen=True)
class Outcome:
    """The result of a load."""

    requests: int
    seconds: float
    p50: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""
    errors: dict[str, int]


class Wrk:
    """One wrk. It goes on until `stop` is called."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @classmethod
    @contextlib.contextmanager
    def on(cls, site: Site, load: Load, cores: frozenset[int], folder: Path) -> Iterator["Wrk"]:
        """Begin to load a server."""
        command = [
            *("wrk", "--threads=1", f"--connections={load.connections}", "--duration=1h"),
            *(f"--timeout={ANSWER}s", f"--script={HERE / 'load.lua'}"),
            *(("--header=Connection: close",) if load.kind == NEW else ()),
            site.url,
        ]
        with running(command, cores, folder, stderr=subprocess.PIPE) as process:
            yield cls(process)

    def stop(self) -> None:
        """End the load."""
        # wrk's own durations are whole seconds. It checks for the signal every 0.1 s.
        self.process.send_signal(signal.SIGINT)

    def outcome(self) -> Outcome:
        """Return the result that `load.lua` writes."""
        _, said = self.process.communicate(timeout=END)
        try:
            found: dict[str, Any] = json.loads(said)
        except ValueError:
            raise BenchError(f"wrk failed: {said.strip() or 'it says nothing'}") from None
        return Outcome(
            found["requests"],
            found["duration"] / 1e6,
            found["p50"] / 1000,
            found["p99"] / 1000,
            found["errors"],
        )


class H2load:
    """One h2load. It ends when it has sent all requests of its time."""

    def __init__(self, process: subprocess.Popen[str], load: Load, log: Path) -> None:
        self.process, self.load, self.log = process, load, log

    @classmethod
    @contextlib.contextmanager
    def on(
        cls, site: Site, load: Load, seconds: float, cores: frozenset[int], folder: Path
    ) -> Iterator["H2load"]:
        """Begin to load a server."""
        clients, rate = load.connections, load.due / load.connections
        log = folder / "requests"
        log.unlink(missing_ok=True)  # h2load would append to an old one
        command = [
            *("h2load", "--h1", f"--clients={clients}", f"--rps={rate}"),
            f"--requests={clients * math.ceil(seconds * rate)}",
            # Clients begin one after the other in the first period, so they take turns later too.
            *(f"--rate={max(1, round(load.due / 1000))}", "--rate-period=1ms"),
            *(f"--log-file={log}", site.url),
        ]
        with running(command, cores, folder) as process:
            yield cls(process, load, log)

    def stop(self) -> None:
        """Do nothing: it ends by itself."""

    def outcome(self) -> Outcome:
        """Return the result that its log of requests shows.

        :raises BenchError: when h2load did not begin, or does not end.
        """
        try:
            status = self.process.wait(timeout=END)
            log = self.log.read_text()
        except (subprocess.TimeoutExpired, OSError):
            status, log = 1, ""
        if status or not log:
            raise BenchError(f"h2load failed: {last_line(self.log.parent)}")
        return _outcome(log, self.load)


def begin(
    site: Site, load: Load, seconds: float, cores: frozenset[int], folder: Path
) -> contextlib.AbstractContextManager[Wrk | H2load]:
    """Begin to load a server, with the program for this load.

    :arg seconds: how long h2load sends; wrk goes on until it is stopped.
    :arg folder: for the program's logs.
    """
    if load.due:
        return H2load.on(site, load, seconds, cores, folder)
    return Wrk.on(site, load, cores, folder)


def _outcome(log: str, load: Load) -> Outcome:
    rows = [tuple(map(int, line.split("\t"))) for line in log.splitlines()]
    errors = sum(status != 200 for _, status, _ in rows)
    began, ended = min(row[0] for row in rows), max(row[0] + row[2] for row in rows)
    clients = load.connections
    found = waits([(at, took) for at, _, took in rows], clients, clients / load.due * 1e6)
    found = sorted(found[math.ceil(OPENING * load.due) :]) or sorted(found)
    return Outcome(
        len(rows),
        (ended - began) / 1e6,
        found[len(found) // 2] / 1000,
        found[len(found) * 99 // 100] / 1000,
        {"status": errors},
    )
