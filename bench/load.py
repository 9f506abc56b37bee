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

#: The file of a load's result, in its folder.
OUTCOME = "outcome"


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


@dataclass(frozen=True)
class Loading:
    """A load on a server; `loading` makes it."""

    load: Load
    process: subprocess.Popen[bytes]
    folder: Path

    def stop(self) -> None:
        """End it; an open loop ends by itself."""
        if not self.load.due:
            # wrk's own durations are whole seconds. It checks for the signal every 0.1 s.
            self.process.send_signal(signal.SIGINT)

    def outcome(self) -> Outcome:
        """Return the result.

        :raises BenchError: when the program failed, or does not end.
        """
        try:
            status = self.process.wait(timeout=END)
            found = (self.folder / OUTCOME).read_text()
        except (subprocess.TimeoutExpired, OSError):
            status, found = 1, ""
        if status or not found:
            program = "h2load" if self.load.due else "wrk"
            raise BenchError(f"{program} failed: {last_line(self.folder)}")
        return _of_h2load(found, self.load) if self.load.due else _of_wrk(found)


@contextlib.contextmanager
def loading(
    site: Site, load: Load, seconds: float, cores: frozenset[int], folder: Path
) -> Iterator[Loading]:
    """Load a server, with the program for this load.

    :arg seconds: how long h2load sends; wrk goes on until it is stopped.
    :arg folder: for the program's files; it is created.
    """
    (folder / OUTCOME).unlink(missing_ok=True)  # h2load would append to an old one
    command = _h2load(load, seconds) if load.due else _wrk(load)
    with running((*command, site.url), cores, folder) as process:
        yield Loading(load, process, folder)


def _wrk(load: Load) -> tuple[str, ...]:
    return (
        *("wrk", "--threads=1", f"--connections={load.connections}", "--duration=1h"),
        *(f"--timeout={ANSWER}s", f"--script={HERE / 'load.lua'}"),
        *(("--header=Connection: close",) if load.kind == NEW else ()),
    )


def _h2load(load: Load, seconds: float) -> tuple[str, ...]:
    clients, rate = load.connections, load.due / load.connections
    return (
        *("h2load", "--h1", f"--clients={clients}", f"--rps={rate}", f"--log-file={OUTCOME}"),
        f"--requests={clients * math.ceil(seconds * rate)}",
        # Clients begin one after the other in the first period, so they take turns later too.
        *(f"--rate={max(1, round(load.due / 1000))}", "--rate-period=1ms"),
    )


def _of_wrk(text: str) -> Outcome:
    """Return the result that `load.lua` wrote."""
    found = json.loads(text)
    seconds, p50, p99 = found["duration"] / 1e6, found["p50"] / 1000, found["p99"] / 1000
    return Outcome(found["requests"], seconds, p50, p99, found["errors"])


def _of_h2load(log: str, load: Load) -> Outcome:
    """Return the result that h2load's log of requests shows."""
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
