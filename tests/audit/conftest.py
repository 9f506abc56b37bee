"""``check.py``, with a process of its own and without, and servers that answer it as tests wish."""

import contextlib
import io
import itertools
import json
import resource
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest

from check import main
from tests.conftest import all_closed
from tests.support import ROOT
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


class SpeakingServer(socketserver.ThreadingTCPServer):
    """Answers each request as it is told, remembers what it was asked, and leaves no thread behind.

    :arg answering: gives what the n-th request is answered with.
    :arg tls: what clients are spoken to with; in the clear when None.
    :arg at: the address and the port to listen on; any port if 0.
    """

    request_queue_size = 128  # more would wait for a second, until they are tried again
    allow_reuse_address = True

    def __init__(
        self,
        answering: Answering,
        tls: ssl.SSLContext | None = None,
        at: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
        super().__init__(at, _SpeakingHandler)
        self.answering, self.tls = answering, tls
        self.numbers = itertools.count(1)
        self.heads: list[str] = []
        """Of each request: its first line and headers."""
        self.connections = 0
        self.names: list[str | None] = []
        """Those that were asked for by SNI."""
        if tls is not None:
            tls.sni_callback = lambda _, name, __: self.names.append(name)
        self.port: int = self.server_address[1]
        self.url = (
            f"http://127.0.0.1:{self.port}" if tls is None else f"https://localhost:{self.port}"
        )
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Mind no client that has left before its answer."""


class _SpeakingHandler(socketserver.StreamRequestHandler):
    server: SpeakingServer

    def setup(self) -> None:
        self.server.connections += 1
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        while head := self.rfile.readline():
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                head += line
            self.server.heads.append(head.decode())
            told = self.server.answering(number := next(self.server.numbers))
            if isinstance(told, tuple):
                told = answer(number, body=told[1], first=f"HTTP/1.1 {told[0]} X")
            self.wfile.write(told)
            if b"Connection: close" in head:
                return

    def finish(self) -> None:
        super().finish()
        self.request.close()  # not the server's, which TLS has put away


@pytest.fixture
def speaking() -> Iterator[Speaking]:
    """Start servers that speak as a test wishes, until it is over."""
    yield from all_closed(SpeakingServer)


@pytest.fixture
def free(speaking: Speaking) -> Iterator[threading.Event]:
    """What answers that hang wait for; when the test is over, none does."""
    event = threading.Event()
    yield event
    event.set()
