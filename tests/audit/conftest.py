"""``check.py``, with a process of its own and without, and servers that answer it as tests wish."""

import asyncio
import contextlib
import io
import itertools
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest

from check import main
from tests.support import ROOT
from tests.support.streams import Service
from tests.support.waiting import PATIENCE

CHECK = (sys.executable, str(ROOT / "check.py"))

#: What the n-th request is answered with: bytes, or a status and a body.
Answering = Callable[[int], bytes | tuple[int, str]]

#: Starts a `SpeakingServer`.
Speaking = Callable[..., "SpeakingServer"]


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)  # the audit raises them
    with (
        patch.object(sys, "argv", ["check.py", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return subprocess.CompletedProcess(
        arguments, int(end.value.code or 0), out.getvalue(), err.getvalue()
    )


def refused(*arguments: str) -> str:
    result = check(*arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("check.py: ")
    return result.stderr.removeprefix("check.py: ")


def failures(url: str, *arguments: str, requests: int = 3) -> dict[str, int]:
    result = check(url, f"--requests={requests}", "--json", *arguments)
    assert result.stderr == ""
    return dict(json.loads(result.stdout)["failures"])


def in_bash(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in which ``"$@"`` is ``check.py`` with these arguments."""
    words = ("bash", "-o", "pipefail", "-c", command, "bash", *CHECK, *arguments)
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)


@contextlib.contextmanager
def started(*command: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes | options) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def page(number: int | None, hostname: str = "a") -> tuple[int, str]:
    return 200, json.dumps({"name": "x", "hostname": hostname, "visits": number})


def answer(
    number: int, *headers: str, body: str | None = None, first: str = "HTTP/1.1 200 OK"
) -> bytes:
    body = page(number)[1] if body is None else body
    lines = [first, f"Content-Length: {len(body.encode())}", *headers]
    if not any(line.lower().startswith("content-type") for line in headers):
        lines.append(f"Content-Type: {'application/json' if body[:1] in '[{' else 'text/html'}")
    return "\r\n".join([*lines, "", body]).encode()


class SpeakingServer(Service):
    """Answers each request as it is told, and remembers what it was asked.

    :arg answering: gives what the n-th request is answered with, in a thread of its own.
    """

    def __init__(self, answering: Answering, **options: Any) -> None:
        super().__init__(**options)
        self.loop.set_default_executor(ThreadPoolExecutor(128))
        self.answering, self.numbers = answering, itertools.count(1)
        self.heads: list[str] = []
        """Of each request: its first line and headers."""
        self.connections = 0
        self.names: list[str | None] = []
        """Those that were asked for by SNI."""
        self.url = f"http://127.0.0.1:{self.port}"
        if self._tls is not None:
            self._tls.sni_callback = lambda _, name, __: self.names.append(name)
            self.url = f"https://localhost:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = b""
        while b"Connection: close" not in head:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            number = next(self.numbers)
            told = await self.loop.run_in_executor(None, self.answering, number)
            if isinstance(told, tuple):
                told = answer(number, body=told[1], first=f"HTTP/1.1 {told[0]} X")
            for part in (told[:-9], told[-9:]):  # as a network may cut it
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.001)


@pytest.fixture
def speaking() -> Iterator[Speaking]:
    """Start servers that speak as a test wishes, until it is over."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(SpeakingServer(*args, **options))


@pytest.fixture
def free(speaking: Speaking) -> Iterator[threading.Event]:
    """What answers that hang wait for; when the test is over, none does."""
    event = threading.Event()
    yield event
    event.set()
