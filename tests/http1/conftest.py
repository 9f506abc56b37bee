"""The event loops of these tests, and what they start."""

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.support import Patch
from tests.support.patient_loops import LOOPS, time_of
from tests.support.served import Serve, Served


@pytest.fixture(
    params=[
        pytest.param("asyncio", marks=pytest.mark.slow),
        "uvloop",  # as the program has it where it is installed
        pytest.param("uvloop, answers together", marks=pytest.mark.slow),  # test_turns.py has more
    ]
)
def new_loop(
    request: pytest.FixtureRequest, monkeypatch: Patch
) -> Callable[[], asyncio.AbstractEventLoop]:
    loop, _, are_together = request.param.partition(", ")
    if are_together:
        monkeypatch.setattr("http1.outbox.MANY", 0)
    monkeypatch.setattr(IOLoop, "time", time_of)
    return LOOPS[loop]


@pytest.fixture
def serve(io_loop: IOLoop) -> Iterator[Serve]:
    """Start a server, with options of `Served`."""
    started: list[Served] = []

    def start(*args: Any, **options: Any) -> Served:
        started.append(Served(*args, **options))
        return started[-1]

    yield start
    for served in started:
        io_loop.run_sync(served.close)


@pytest.fixture
def serve_tls(serve: Serve) -> Serve:
    return functools.partial(serve, tls=True)


@pytest.fixture(params=[False, True], ids=["in the clear", "TLS"])
def serve_either(request: pytest.FixtureRequest, serve: Serve, serve_tls: Serve) -> Serve:
    return serve_tls if request.param else serve
