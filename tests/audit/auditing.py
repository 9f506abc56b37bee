"""``check.py``, with a process of its own and without, and servers that answer it as tests wish."""

import contextlib
import io
import json
import resource
import socket
import socketserver
import ssl
import subprocess
import sys
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from unittest.mock import patch

from check import main
from tests.support import ROOT
from tests.support.waiting import PATIENCE

Answer = Callable[[int], tuple[int, str]]


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the audit in this process, which saves a start."""
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
    """Return the line that says why there is no audit."""
    result = check(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("check.py: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def run_check(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the audit as a process."""
    return subprocess.run(
        [sys.executable, str(ROOT / "check.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,  # type: ignore[call-overload]
    )


def page(number: int | None, hostname: str = "a") -> tuple[int, str]:
    return 200, json.dumps({"name": "x", "hostname": hostname, "visits": number})


class AnsweringServer(ThreadingHTTPServer):
    """Takes as many connections at once as the audit opens, and leaves no thread behind."""

    daemon_threads = False
    request_queue_size = 128  # more would wait for a second, until they are tried again

    def handle_error(self, *_: object) -> None:
        """Mind no client that has left before its answer."""


class SpeakingServer(socketserver.ThreadingTCPServer):
    """Answers each request with bytes, and remembers what it was asked.

    :arg answer: gives the bytes for the n-th request.
    :arg tls: what clients are spoken to with; in the clear when None.
    :arg closing: close the connection after each answer, also of clients that would keep it.
    """

    daemon_threads = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        answer: Callable[[int], bytes],
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        closing: bool = False,
    ) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, 0), _SpeakingHandler)
        self.answer, self.tls, self.closing = answer, tls, closing
        self.heads: list[str] = []
        """Of each request: its first line and headers."""
        self.connections = 0
        self.names: list[str | None] = []
        """Those that were asked for by SNI."""
        if tls is not None:
            tls.sni_callback = lambda _, name, __: self.names.append(name)
        self.port: int = self.server_address[1]

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
        while line := self.rfile.readline():
            head = line
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                head += line
            self.server.heads.append(head.decode())
            self.wfile.write(self.server.answer(len(self.server.heads)))
            if self.server.closing or "Connection: close" in self.server.heads[-1]:
                return

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.request.close()  # not the server's, which TLS has put away
