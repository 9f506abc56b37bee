"""No server outlives its test."""

from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from tests.http1.test_server import Served


@pytest.fixture
def io_loop(io_loop: IOLoop) -> Iterator[IOLoop]:
    """Close the servers of a test that has failed: uvloop would wait for their clients for good."""
    yield io_loop
    while Served.started:
        io_loop.run_sync(Served.started[-1].close)
