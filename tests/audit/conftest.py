"""Servers that answer the audit as a test wishes, and a real one."""

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.audit.auditing import Answering, SpeakingServer
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE


@pytest.fixture
def speaking() -> Iterator[Callable[..., SpeakingServer]]:
    """Run a `SpeakingServer` in a thread of its own, until the test is over."""
    with contextlib.ExitStack() as stack:

        def serve(answering: Answering, **options: object) -> SpeakingServer:
            server = SpeakingServer(answering, **options)  # type: ignore[arg-type]
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            for end in (server.server_close, thread.join, server.shutdown):  # the last one first
                stack.callback(end)
            return server

        yield serve


class Site(NamedTuple):
    url: str
    port: int
    valkey: Valkey


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A real server that counts, for all tests that visit one."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hello-"))
        valkey = Valkey(Path(folder))
        stack.callback(valkey.close)
        valkey.start()
        # Visits of which all count, as they do not where a busy machine lets a deadline pass.
        program = Program(f"--redis-url={valkey.url}", "--redis-timeout=60", "--access-log=false")
        stack.callback(program.close)
        program.wait_for(b"counter on", PATIENCE)
        yield Site(program.url, program.port, valkey)
