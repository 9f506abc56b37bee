"""Servers that answer the audit as a test wishes."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any

import pytest

from tests.audit.auditing import Answer, AnsweringServer, SpeakingServer


@pytest.fixture
def serving() -> Iterator[Callable[[TCPServer], None]]:
    """Run a server in a thread of its own, until the test is over."""
    servers: list[tuple[TCPServer, threading.Thread]] = []

    def serve(server: TCPServer) -> None:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        servers.append((server, thread))
        thread.start()

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()  # waits for its answers


@pytest.fixture
def answering(serving: Callable[[TCPServer], None]) -> Callable[[Answer], str]:
    """Serve what a function gives for the n-th request, and return the URL."""

    def serve(answer: Answer) -> str:
        numbers = iter(range(1, 10**9))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(next(numbers))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header(
                    "Content-Type", "application/json" if body[:1] in "[{" else "text/html"
                )
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = AnsweringServer(("127.0.0.1", 0), Handler)
        serving(server)
        return f"http://127.0.0.1:{server.server_port}"

    return serve


@pytest.fixture
def speaking(serving: Callable[[TCPServer], None]) -> Callable[..., SpeakingServer]:
    """Serve bytes, as `SpeakingServer` does."""

    def serve(answer: Callable[[int], bytes], **options: Any) -> SpeakingServer:
        server = SpeakingServer(answer, **options)
        serving(server)
        return server

    return serve
