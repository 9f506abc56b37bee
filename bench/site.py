"""Runs a server."""

import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.machine import BenchError, Cores, listening
from bench.servers import Server
from bench.store import Redis

NAME = "world"
PAGE = rf"<h3>Hello {NAME}!</h3><b>Hostname:</b> {{hostname}}<br/><b>Visits:</b> \d+"


@dataclass(frozen=True)
class Site:
    """A running server; `serving` makes it."""

    server: Server
    log: bool
    port: int
    https: bool
    process: psutil.Process
    first_page: float
    """Milliseconds from the command to the first page."""

    @property
    def url(self) -> str:
        """The URL of its page."""
        return f"{'https' if self.https else 'http'}://127.0.0.1:{self.port}/"

    def tree(self) -> list[psutil.Process]:
        """Return its process and the process's children."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """Return the seconds of CPU time that it has used."""
        times = [process.cpu_times() for process in self.tree()]
        return float(sum(one.user + one.system for one in times))

    def is_at_work(self) -> bool:
        """Tell whether one of its processes runs, or waits for a core."""
        return any(process.status() == psutil.STATUS_RUNNING for process in self.tree())

    def memory(self) -> float:
        """Return its resident memory, in MiB."""
        return float(sum(process.memory_info().rss for process in self.tree())) / 2**20


@dataclass(frozen=True)
class Bench:
    """One run, in a folder for its logs; `bench.run` makes it."""

    cores: Cores
    redis: Redis
    folder: Path
    seconds: float
    """How long each measurement takes."""
    certificate: dict[str, str]
    """The paths of its ``cert`` and ``key``."""


@contextlib.contextmanager
def serving(
    run: Bench,
    server: Server,
    log: bool = False,
    redis: Redis | None = None,
    number: int = 0,
    https: bool = False,
) -> Iterator[Site]:
    """Run a server on its cores, with a process for each core, and wait for its first page.

    :arg log: whether it logs requests; one of its variants.
    :arg redis: in which it counts; None for the run's own.
    :arg number: tells apart several servers of the same kind.
    :raises BenchError: when it does not start, or does not serve the page.
    """
    cores, url = run.cores.server, (redis or run.redis).url
    folder = run.folder / f"{server.name}-{'https' if https else number}"
    command = server.command + server.variants[log]
    env = {"NAME": NAME, "REDIS_URL": url, "NODE_ENV": "production"}
    env["PROCESSES"] = str(len(cores))
    if https:
        command += server.tls or ()
        env |= {"TLS_CERT": run.certificate["cert"], "TLS_KEY": run.certificate["key"]}
    filled = [part.format(port="{port}", redis=url, **run.certificate) for part in command]
    page: str | None = None

    def is_ready(port: int) -> bool:
        nonlocal page
        page = _page(port, https)
        return page is not None

    began = time.perf_counter()
    with listening(server.name, filled, cores, folder, env, is_ready) as (port, process):
        first_page = (time.perf_counter() - began) * 1000
        assert page is not None
        if not re.fullmatch(PAGE.format(hostname=re.escape(socket.gethostname())), page):
            raise BenchError(f"{server.name} does not serve the page, but {page[:200]!r}")
        known = psutil.Process(process.pid)
        yield Site(server, log, port, https, known, first_page)


def _page(port: int, https: bool) -> str | None:
    """Return the page; None while nothing listens."""
    connection = (
        # This run made the certificate, so nothing needs to check it.
        http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=5, context=ssl._create_unverified_context()
        )
        if https
        else http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    )
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


def traffic(site: Site) -> dict[str, int]:
    """Return the bytes of wrk's request, and of the answer, with headers."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as connection:
        connection.sendall(request)
        answer = connection.recv(65536)  # the answer is small, and comes in one piece
    return {"request": len(request), "answer": len(answer)}
