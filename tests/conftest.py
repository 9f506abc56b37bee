"""The fixtures of all rooms: a real Valkey, and the real program, for each test that asks."""

import asyncio
import functools
import inspect
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

import counter.probing
from tests.support import store
from tests.support.fake_redis import FakeRedis
from tests.support.here import PAUSE, Served
from tests.support.program import Program, Site
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak",
        type=float,
        default=0.2,
        metavar="MINUTES",
        help="how long the soak of tests/faults goes on (default 0.2)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # pytest-tornado gives a test 5 seconds, and Tornado's own classes do: for a busy machine, few.
    # It is more than each wait of a test has, so that the wait that fails is named.
    config.option.async_test_timeout = 2 * PATIENCE
    os.environ.setdefault("ASYNC_TEST_TIMEOUT", str(2 * PATIENCE))
    # nohup(1) ignores SIGHUP, and a shell ignores SIGINT for what it starts in the background. Each
    # program would go on ignoring them; a handler is not passed on.
    for signum in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)


def pytest_unconfigure() -> None:
    store.end()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run each coroutine in an event loop of its own."""
    if inspect.iscoroutinefunction(getattr(item, "obj", None)):
        item.add_marker("gen_test")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path leaves room for a Unix socket, as ``tmp_path`` may not."""
    path = Path(tempfile.mkdtemp(prefix="hello-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def valkey(folder: Path) -> Iterator[Valkey]:
    """A running Valkey of the test's own."""
    server = Valkey(folder)
    server.start()
    yield server
    server.close()


def all_closed(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Let a test make things that are closed after it."""
    made: list[Any] = []

    def start(*args: object, **options: object) -> Any:
        made.append(make(*args, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def program(folder: Path) -> Iterator[Callable[..., Program]]:
    """Start ``python server.py`` on a free port; flags as arguments, variables as keywords.

    The folder outlives it: an embedded Valkey may be writing there until it has ended.
    """
    yield from all_closed(Program)


@pytest.fixture
def served() -> Iterator[Callable[..., Served]]:
    """Serve in a thread of this process, as ``program`` does in one of its own."""
    yield from all_closed(Served)


@pytest.fixture
def serve(served: Callable[..., Served], valkey: Valkey) -> Callable[..., Served]:
    """Serve in a thread of this process, and count in the test's Valkey."""
    return functools.partial(served, f"--redis-url={valkey.url}")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[threading.Event]:
    """Let the test end the pauses in which what is served here, and stops, still answers.

    The first is before it stops listening, the second before it closes what is idle.
    """
    both = [threading.Event(), threading.Event()]
    left = iter(both)

    async def sleep(delay: float, _sleep: Callable = asyncio.sleep) -> None:
        is_over = next(left).is_set if delay == PAUSE else None
        await _sleep(0 if is_over else delay)
        while is_over and not is_over():
            await _sleep(0.01)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return both


@pytest.fixture
def counting(program: Callable[..., Program]) -> Callable[..., Program]:
    """Start it as ``program`` does, and wait until it counts.

    It looks for Redis no longer than a quarter of a second before it takes visits, which on a
    busy machine may be too short for the first one to count.
    """

    def start(*flags: str, **options: object) -> Program:
        server = program(*flags, **options)
        server.wait_for(rb"counter on", PATIENCE)
        return server

    return start


@pytest.fixture
def connect() -> Iterator[Callable[[Site], HTTPConnection]]:
    """Open a connection to a server, on which one request follows the other."""

    def connect(site: Site) -> HTTPConnection:
        client = HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
        client.connect()
        return client

    yield from all_closed(connect)


@pytest.fixture
def fake() -> Iterator[FakeRedis]:
    """A Redis that misbehaves on demand."""
    with FakeRedis() as server:
        yield server


@pytest.fixture
def often_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the counter look for Redis ten times as often, where that is not the promise."""
    monkeypatch.setattr(counter.probing, "PROBE_EVERY", counter.probing.PROBE_EVERY / 10)


@pytest.fixture
def patient_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look for Redis take as long as it likes, where what it meets is the promise."""
    for module in ("counter.visits", "counter.probing"):
        monkeypatch.setattr(f"{module}.PROBE_TIMEOUT", PATIENCE)


@pytest.fixture
def new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Make the event loop of a test; a module may have its tests run on others too."""
    return asyncio.new_event_loop


@pytest.fixture
def io_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[IOLoop]:
    """Replace pytest-tornado's, which calls what Tornado deprecates; what runs ends with it."""
    loop = IOLoop(make_current=False, asyncio_loop=new_loop())
    asyncio_loop = loop.asyncio_loop  # type: ignore[attr-defined]
    asyncio.set_event_loop(asyncio_loop)
    yield loop
    tasks = asyncio.all_tasks(asyncio_loop)
    for task in tasks:
        task.cancel()
    asyncio_loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    asyncio_loop.run_until_complete(asyncio_loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close(all_fds=True)
