"""Clients that speak HTTP byte by byte, and what a process costs while they do."""

import contextlib
import os
import re
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import used
from tests.support.program import Program, Site
from tests.support.waiting import PATIENCE

VISIT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

Bytes = bytes | Callable[[], Iterable[bytes]]


class Answer(NamedTuple):
    status: int
    headers: bytes
    body: bytes

    @property
    def visit(self) -> int | None:
        match = re.search(rb"<b>Visits:</b> (\d+)$", self.body)
        return match and int(match[1])

    @property
    def is_health(self) -> bool:
        return self.body == b'{"status": "ok"}'


def answers_in(data: bytes) -> list[Answer]:
    """Split what a server sent; an answer without a length reaches to the end."""
    answers = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        match = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        assert match, f"no answer: {data[:200]!r}"
        assert end, f"half an answer: {data[:200]!r}"
        status = int(match[1])
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        size = int(length[1]) if length else 0 if status < 200 else len(rest)
        assert len(rest) >= size, f"half an answer: {data[:200]!r}"
        if status >= 200:
            answers.append(Answer(status, head, rest[:size]))
        data = rest[size:]
    return answers


def open_to(server: Site, seconds: float = PATIENCE) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=seconds)


def send(client: socket.socket, sent: Bytes) -> None:
    """Send it all, or what the server takes before it closes the connection."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for piece in [sent] if isinstance(sent, bytes) else sent():
            client.sendall(piece)


def read_to_end(client: socket.socket) -> bytes:
    """Read until the server closes the connection; TimeoutError when it does not."""
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            data += chunk
    return bytes(data)


def talk(server: Site, sent: Bytes, *, half_close: bool = False) -> list[Answer]:
    """Send on a connection of its own, until it is closed; return the answers."""
    with open_to(server) as client:
        send(client, sent)
        if half_close:
            with contextlib.suppress(OSError):  # the server has closed it
                client.shutdown(socket.SHUT_WR)
        return answers_in(read_to_end(client))


def ask(client: socket.socket, request: bytes = VISIT) -> Answer:
    client.sendall(request)
    return read_answer(client)


def read_answer(client: socket.socket) -> Answer:
    data = b""
    while True:
        chunk = client.recv(65536)
        if not chunk and not data:
            raise ConnectionAbortedError("closed without an answer")
        assert chunk, f"closed after {data!r}"
        data += chunk
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            [answer] = answers_in(data)
            return answer


def reset(client: socket.socket) -> None:
    """Close without a farewell (socket(7), SO_LINGER)."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextlib.contextmanager
def closing(clients: list[socket.socket]) -> Iterator[list[socket.socket]]:
    """Close every one, those that are added later too."""
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


@contextlib.contextmanager
def logged(server: Program, descriptor: int | None = None) -> Iterator[bytearray]:
    """Read the log all the time, and to its end.

    :arg descriptor: where it can be read, when the program was given a standard error.
    """
    log, over = bytearray(server.log), threading.Event()
    with open(os.dup(descriptor or server.process.stderr.fileno()), "rb", 0) as file:

        def read() -> None:
            is_last = False
            while not is_last:
                is_last = over.is_set()
                while select.select([file], [], [], 0.05)[0]:
                    if not (chunk := file.read(65536)):
                        return
                    log.extend(chunk)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield log
        finally:
            over.set()
            reader.join()


@contextlib.contextmanager
def many_descriptors() -> Iterator[int]:
    """Raise the limit of this process, and of what it starts, as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors(server: Program) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def memory(server: Program, which: str = "VmRSS") -> int:
    """Bytes that are in memory, or were at most (VmHWM; proc_pid_status(5))."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    match = re.search(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
    assert match
    return 1024 * int(match[1])


def settled(what: Callable[[Program], int], server: Program, pause: float = 0.05) -> int:
    """Return how much there is once it does not change: there may be more for a moment."""
    before = -1
    while (now := what(server)) != before:
        before = now
        time.sleep(pause)
    return now


def cpu_seconds(server: Program) -> float:
    return used(server.process.pid)
