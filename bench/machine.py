"""The machine of a run: its cores, its limits, and processes that end with it."""

import contextlib
import os
import platform
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from bench.servers import PATH

#: Seconds that a process has to start, and to end.
START, END = 20.0, 20.0

#: The signals that end a run.
ENDINGS = {signal.SIGINT, signal.SIGTERM}

#: Descriptors for 4,096 clients and for a server's own connections to Redis.
DESCRIPTORS = 16_384


class BenchError(RuntimeError):
    """The measurement cannot go on; the message is one line for the user."""


@dataclass(frozen=True)
class Cores:
    """The servers' own cores, and the cores of the load and of Redis."""

    server: frozenset[int]
    load: frozenset[int]


def split_cores(servers: int = 1) -> Cores:
    """Give the last cores to the server, and the others to the load, Redis and this process.

    :arg servers: how many cores the server gets.
    :raises BenchError: when no core is left for the load, or the system cannot choose cores.
    """
    if not _CORES:
        raise BenchError("only Linux can choose the cores of a process")
    if len(_CORES) <= servers:
        raise BenchError(
            "two cores are needed: one for the server, one for the load and Redis"
            if servers == 1
            else f"{servers + 1} cores are needed, and there are {len(_CORES)}"
        )
    return Cores(frozenset(_CORES[-servers:]), frozenset(_CORES[:-servers]))


#: The cores that this process had at its start.
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def raise_limits() -> None:
    """Allow this process and its children the descriptors that the load needs.

    :raises BenchError: when the system's limit is lower, and this process may not raise it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # Only root may raise the hard limit.
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS)))
    except (ValueError, OSError):
        raise BenchError(f"{DESCRIPTORS} open files are needed, `ulimit -Hn` says {hard}") from None


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """Reserve a free port of 127.0.0.1.

    A socket is bound to the port as long as the context is open. Linux lets a server bind the port
    too if both sockets set ``SO_REUSEADDR`` (socket(7)). It gives the port to no process that asks
    for any free port.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str],
    cores: frozenset[int],
    folder: Path,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command on some cores as long as the context is open.

    At the end, the command and its children are killed: the run needs nothing more from them, and
    nothing may outlive the run. The output goes to the file ``log`` in the folder.

    :arg folder: the working directory; it is created.
    :arg env: environment variables to add.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process: subprocess.Popen[bytes] | None = None
    try:
        with (folder / "log").open("w") as log, _held_back():
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={"PATH": PATH, "HOME": str(folder), "LANG": "C.UTF-8", **(env or {})},
                preexec_fn=partial(_begin, cores),
                start_new_session=True,  # so a terminal's Ctrl-C reaches only this process
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        yield process
    finally:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_open(port: int) -> bool:
    """Tell whether a server listens on a port of 127.0.0.1."""
    with socket.socket() as client:
        return not client.connect_ex(("127.0.0.1", port))


@contextlib.contextmanager
def listening(
    name: str,
    command: Sequence[str],
    cores: frozenset[int],
    folder: Path,
    env: dict[str, str] | None = None,
    is_ready: Callable[[int], bool] = is_open,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a server on a free port, its ``PORT``, and wait until it is ready; see `running`.

    :arg command: with ``{port}`` to fill in.
    :raises BenchError: when it does not start.
    """
    with held_port() as port:
        filled = [part.format(port=port) for part in command]
        with running(filled, cores, folder, (env or {}) | {"PORT": str(port)}) as process:
            deadline = time.monotonic() + START
            while not is_ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"{name} does not start: {last_line(folder)}")
                time.sleep(0.001)
            yield port, process


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold the run's end signals back until the new process's id is known."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(cores: frozenset[int]) -> None:
    os.sched_setaffinity(0, cores)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def last_line(folder: Path) -> str:
    """Return the last line of the log of a process that ran in a folder."""
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


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
