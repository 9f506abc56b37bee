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
from collections.abc import Callable, Iterator
from unittest.mock import patch

from check import main
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
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        stack.enter_context(patch.object(sys, "argv", ["check.py", *arguments]))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def refused(*arguments: str) -> str:
    result = check(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("check.py: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("check.py: ")


def failures(url: str, *arguments: str, requests: int = 3) -> dict[str, int]:
    result = check(url, f"--requests={requests}", "--json", *arguments)
    assert result.stderr == ""
    return dict(json.loads(result.stdout)["failures"])


def run_check(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CHECK, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,  # type: ignore[call-overload]
    )


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*CHECK, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
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
    :arg closing: close the connection after each answer, also of clients that would keep it.
    :arg port: to listen on; any if 0.
    """

    daemon_threads = False
    request_queue_size = 128  # more would wait for a second, until they are tried again
    allow_reuse_address = True

    def __init__(
        self,
        answering: Answering,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        closing: bool = False,
        port: int = 0,
    ) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _SpeakingHandler)
        self.answering, self.tls, self.closing = answering, tls, closing
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
            if self.server.closing or b"Connection: close" in head:
                return

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.request.close()  # not the server's, which TLS has put away
