"""The real program, as a process, and what a test asks of the page that it serves."""

import contextlib
import dataclasses
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

from config import Settings
from tests.support import ROOT
from tests.support.page import number_on
from tests.support.ports import held_port
from tests.support.waiting import PATIENCE, wait_until

_SETTINGS = {field.name.upper() for field in dataclasses.fields(Settings)}

#: Without the proxy that the environment may name: it does not reach this machine's own servers.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


#: A Redis that there is not.
NOWHERE = "--redis-url=unix:/nowhere/redis.sock"


def environment(**variables: str) -> dict[str, str]:
    """Return this process's variables without those of the settings, and with others."""
    return {name: os.environ[name] for name in os.environ.keys() - _SETTINGS} | variables


class Logging:
    """What writes a log, and has written this so far."""

    log = b""

    def wait_for(self, pattern: bytes, seconds: float = PATIENCE) -> re.Match[bytes]:
        """Wait until the log matches a pattern; fail when it does not in time."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.log)):
            more = self._reads_more(deadline - time.monotonic())
            assert more, f"no {pattern!r} in the log:\n{self.log.decode()}"
        return match

    def _reads_more(self, seconds: float) -> bool:
        """Wait for more of the log, and tell whether there may be more."""
        raise NotImplementedError

    def _read(self, descriptor: int, seconds: float) -> bool:
        is_ready = select.select([descriptor], [], [], max(seconds, 0))[0]
        chunk = os.read(descriptor, 65536) if is_ready else b""
        self.log += chunk
        return bool(chunk)


class Site(Logging):
    """A server of the test's own: its port, and its URL."""

    port: int
    url: str

    def signal(self, signum: int = signal.SIGTERM) -> None:
        raise NotImplementedError

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end and for the rest of the log, and return the exit status."""
        raise NotImplementedError

    def stop(self) -> list[str]:
        """Stop it, and return the lines of its log."""
        self.signal()
        assert self.wait() == 0
        assert b"Traceback" not in self.log, self.log.decode()
        return self.log.decode().splitlines()

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._ask(urllib.request.Request(self.url + path, method=method, headers=names))

    def put(self, path: str, body: bytes) -> tuple[int, str]:
        return self._ask(urllib.request.Request(self.url + path, body, method="PUT"))

    def _ask(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with _open(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def visits(self) -> int | None:
        """Visit once and return the number that the page shows."""
        status, page = self.get()
        assert status == 200
        return number_on(page.encode())

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Watch the live page, and read its figures event by event."""
        with _open(f"{self.url}/live/events", timeout=PATIENCE) as stream:
            lines = (line for line in stream if line.startswith(b'data: {"time"'))
            yield (json.loads(line.removeprefix(b"data: ")) for line in lines)

    def event(self) -> dict[str, Any]:
        """Return what one who begins to watch is told first."""
        with self.events() as events:
            return next(events)


class Program(Site):
    """``python server.py`` as a process, with the page it serves and the log it writes."""

    def __init__(
        self,
        *flags: str,
        wait: bool = True,
        cwd: Path = ROOT,
        python: Sequence[str] = (sys.executable,),
        script: Path = ROOT / "server.py",
        stdout: IO[str] | None = None,
        stderr: int = subprocess.PIPE,
        **env: str,
    ) -> None:
        """Start it, and wait until it listens.

        :arg stderr: a descriptor for the log, which is then not read here.
        """
        holding = contextlib.nullcontext() if stderr == subprocess.PIPE else held_port()
        with holding as held:
            self.port = held.getsockname()[1] if held else 0
            self.process = subprocess.Popen(
                [*python, str(script), f"--port={self.port}", *flags],
                cwd=cwd,
                env=environment(**env),
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                if wait:
                    self.wait_until_it_listens()
            except BaseException:
                self.close()  # else nobody would
                raise

    def wait_until_it_listens(self) -> None:
        scheme = b"http"
        if self.port:
            wait_until(lambda: not refuses(self))
        else:
            line = self.wait_for(rb"listening on (https?)://\S+:(\d+)/")
            scheme, self.port = line[1], int(line[2])
        self.url = f"{scheme.decode()}://127.0.0.1:{self.port}"

    def _reads_more(self, seconds: float) -> bool:
        return self.process.stderr is not None and self._read(self.process.stderr.fileno(), seconds)

    def signal(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signum)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end, reading the rest of the log, and return the exit status."""
        deadline = time.monotonic() + seconds
        while self._reads_more(deadline - time.monotonic()):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def close(self) -> None:
        if self.process.poll() is None:
            self.signal()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


#: What the fixtures `program`, `counting` and `served` are, and what `connect` is.
Start = Callable[..., Program]
Connect = Callable[[Site], HTTPConnection]


def ask(connection: HTTPConnection, path: str = "/healthz") -> tuple[int, str]:
    """Send a request and return the status and body of its answer."""
    connection.request("GET", path)
    return read(connection)


def read(connection: HTTPConnection) -> tuple[int, str]:
    """Return the status and body of the answer to a request that was sent before."""
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def seen(bystander: HTTPConnection) -> None:
    """Wait until the program has read what other connections sent before."""
    for _ in range(2):
        assert ask(bystander)[0] == 200


def refuses(site: Site) -> bool:
    """Whether the port takes no connection."""
    try:
        socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # the port was closed while this one waited to be accepted
    return False


def run_to_end(*flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``python server.py`` when it is to end by itself."""
    return subprocess.run(
        [sys.executable, str(ROOT / "server.py"), *flags],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
