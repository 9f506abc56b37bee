"""Servers that answer the audit as a test wishes."""

import contextlib
import threading
from collections.abc import Iterator

import pytest

from tests.audit.auditing import Answering, Speaking, SpeakingServer


@pytest.fixture
def speaking() -> Iterator[Speaking]:
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


@pytest.fixture
def free(speaking: Speaking) -> Iterator[threading.Event]:
    """What answers that hang wait for; when the test is over, none does."""
    event = threading.Event()
    yield event
    event.set()
