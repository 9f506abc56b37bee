"""Clients that make the server take memory: it takes no more than it has, and gives it back."""

import contextlib
import itertools
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

import limits
from http1 import head
from tests.process.test_tls import Files, files
from tests.support import ROOT, raw_http
from tests.support.driven import timed
from tests.support.memory import memory_group
from tests.support.program import Program, Start
from tests.support.raw_http import HEALTH
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["files"]

MB = 1 << 20

#: What compose, stack and the Kubernetes base give it.
LIMIT = 96 * MB

#: Seconds after which the memory of clients that have left is back, but for so much.
BACK, REST = 5.0, 3 * MB

#: More than it has room for: plain, and over TLS.
CLIENTS = (560, 260)


def fields(number: int) -> bytes:
    return b"".join(b"X%d: y\r\n" % i for i in range(number))


def request(line: bytes, *lines: bytes, size: int = 0) -> bytes:
    """Return a head, of so many bytes if they are given."""
    head = b"\r\n".join([line + b" HTTP/1.1", b"Host: a", *lines, b""])
    filled = b"Z: " + b"z" * (size - len(head) - 7) + b"\r\n" if size else b""
    return head + filled + b"\r\n"


JUNK = b"x" * (256 * 1024)
MANY = 300

#: What each of many clients sends, by what it makes the server keep.
STATES = {
    "nothing": b"",
    "an answer": request(b"GET /healthz"),
    "half a head": request(b"GET /", fields(100)[:-2], size=16_000)[:-2],
    # Heads too long for all such connections to share one.
    "half a body": request(
        b"POST /", fields(120)[:-2], b"Content-Length: 65536", size=2 * head.MAX_CACHED
    )
    + b"x" * 65_500,
    "half a body that is kept": request(
        b"PUT /faults", fields(120)[:-2], b"Content-Length: 4096", size=2 * head.MAX_CACHED
    )
    + b"x" * 4000,
    # As the live page asks for it.
    "a stream": request(b"GET /live/events?last=5m"),
    "a stream, and further bytes": request(b"GET /live/events?last=5m") + JUNK,
    "a page that waits, and further bytes": request(b"GET /?wait=3s", fields(100)[:-2], size=16_000)
    + JUNK,
    "unread pages": request(b"GET /live") * MANY,
    "unread files": request(b"GET /static/live.js") * MANY,
}

#: What is said of it in `docs/settings.md`.
DOCUMENTED = {
    name: (int(plain), int(tls))
    for name, plain, tls in re.findall(
        r"^\| ([a-z, ]+) \| (\d+) kB \| (\d+) kB \|$",
        (ROOT / "docs" / "settings.md").read_text(),
        re.M,
    )
}

BOTH = pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])


class Crowd:
    """Clients that send the same, as far as the server takes it, and then nothing."""

    def __init__(self, server: Program, sent: bytes, over_tls: bool) -> None:
        self._server = server
        self._sent = sent
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if over_tls and sent else None
        if self._context:
            self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self.clients: list[socket.socket] = []

    def come(self, number: int) -> None:
        for _ in range(number):
            client = raw_http.open_to(self._server, 0.2)
            self.clients.append(client)
            with contextlib.suppress(OSError):  # there was no room, or it is closed
                if self._context:
                    client = self.clients[-1] = self._context.wrap_socket(client)
                client.settimeout(0)
                for at in range(0, len(self._sent), 16_384):
                    client.sendall(self._sent[at : at + 16_384])

    def leave(self) -> None:
        for client in self.clients:
            client.close()


#: What the others ask for, one after the other.
PROBES = (HEALTH, request(b"GET /readyz"), raw_http.VISIT, request(b"GET /metrics"))


@contextlib.contextmanager
def answered(server: Program, over_tls: bool) -> Iterator[list[raw_http.Answer]]:
    """Ask all the while, each time on a connection of its own; the list gets the answers."""
    answers: list[raw_http.Answer] = []
    failed: list[object] = []
    over = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask_on() -> None:
        for probe in itertools.cycle(PROBES):
            try:
                with contextlib.ExitStack() as stack:
                    client = stack.enter_context(raw_http.open_to(server))
                    if over_tls:
                        client = stack.enter_context(context.wrap_socket(client))
                    answers.append(raw_http.ask(client, probe))
            except Exception as error:
                failed.append((probe, error))
            if over.wait(0.02):
                return

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join(PATIENCE)
    assert not failed, failed[0]
    assert {one.status for one in answers} == {200}
    numbers = [one.visit for one in answers[PROBES.index(raw_http.VISIT) :: len(PROBES)]]
    assert None not in numbers
    assert len(set(numbers)) == len(numbers)


def flags_of(
    files: Files, over_tls: bool, redis_url: str = "unix:/nowhere/redis.sock"
) -> tuple[str, ...]:
    own = f"--redis-url={redis_url}", "--redis-timeout=60", "--access-log=false", "--faults"
    return (*own, *files.flags) if over_tls else own


def settled(server: Program) -> int:
    """Return the memory once it does not change any more."""
    before = -1
    while (now := raw_http.memory(server)) != before:
        before = now
        time.sleep(0.3)
    return now


@BOTH
@pytest.mark.parametrize("state", STATES)
def test_a_connection_takes_no_more_than_is_documented(
    state: str, over_tls: bool, files: Files, program: Start
) -> None:
    server = program(*flags_of(files, over_tls))
    crowd = Crowd(server, STATES[state], over_tls)
    crowd.come(50)  # what is needed once, is there
    before, number = settled(server), 150
    crowd.come(number)
    each = (settled(server) - before) / number / 1000
    crowd.leave()
    print(f"{state}: {each:.1f} kB")
    most = DOCUMENTED[state][over_tls]
    assert each <= most <= (limits.TLS_CONNECTION if over_tls else limits.CONNECTION) / 1000


@BOTH
@pytest.mark.parametrize("state", STATES)
def test_a_crowd_finds_room_or_not_and_all_others_are_answered(
    state: str, over_tls: bool, files: Files, program: Start, valkey: Valkey
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(raw_http.many_descriptors())
        group = stack.enter_context(memory_group(LIMIT))
        server = program(*flags_of(files, over_tls, valkey.url), python=group.python)
        stack.callback(server.close)
        server.wait_for(b"counter on")
        one = Crowd(server, STATES[state], over_tls)
        with answered(server, over_tls) as answers:  # what is needed once, is there
            one.come(1)
            wait_until(lambda: len(answers) > len(PROBES))
            one.leave()
        for _ in range(2):
            come_and_go(server, state, over_tls, settled(server) + REST)
        assert server.process.poll() is None
        assert group.kills == 0


def come_and_go(server: Program, state: str, over_tls: bool, most: int) -> None:
    """Have a crowd come; as soon as it has left, the server takes no more than this memory.

    :arg most: bytes.
    """
    # Those that wait for the server, not it for them, make no room.
    many = 200 if state == "a page that waits, and further bytes" else CLIENTS[over_tls]
    crowd = Crowd(server, STATES[state], over_tls)
    with answered(server, over_tls) as answers:
        crowd.come(many)
        there = len(answers)
        wait_until(lambda: len(answers) > there + len(PROBES))
        assert raw_http.memory(server) < LIMIT
        crowd.leave()
    _, seconds = timed(server, lambda: wait_until(lambda: raw_http.memory(server) < most))
    print(f"{state}: {len(answers)} answers, back after {seconds:.1f} s")
    assert seconds < BACK + 2


@BOTH
def test_a_trickle_of_connections_that_are_reset_leaves_nothing(
    over_tls: bool, files: Files, program: Start
) -> None:
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(memory_group(LIMIT))
        server = program(*flags_of(files, over_tls), python=group.python)
        stack.callback(server.close)
        body = request(b"PUT /faults", b"Content-Length: 4096") + b"x" * 4000
        some = request(b"POST /", b"Content-Length: 65536") + b"x" * 63_000
        sizes = []
        for _ in range(2):
            for _ in range(60):
                crowd = Crowd(server, some + body, over_tls)
                crowd.come(10)
                for client in crowd.clients:
                    raw_http.reset(client)
            sizes.append(settled(server))
        assert sizes[1] < sizes[0] + REST
        assert group.kills == 0


#: What one client may say, how often with something else.
WAYS = {
    "names": (3000, lambda i: request(b"GET /", b"X%d%s: y" % (i, b"x" * 120))),
    "long names": (1100, lambda i: request(b"GET /", b"X%d%s: y" % (i, b"x" * 15_000))),
    "hosts": (1000, lambda i: b"GET / HTTP/1.1\r\nHost: %d.%s\r\n\r\n" % (i, b"a" * 290)),
    "long hosts": (200, lambda i: b"GET / HTTP/1.1\r\nHost: %d.%s\r\n\r\n" % (i, b"a" * 15_000)),
    "queries": (300, lambda i: request(b"GET /live?%d%s" % (i, b"x" * 15_000))),
    "methods": (1000, lambda i: request(b"X%d%s /" % (i, b"X" * 40))),
    "accepts": (300, lambda i: request(b"GET /", b"Accept: a/%d%s" % (i, b"b" * 15_000))),
    "versions": (300, lambda i: request(b"GET /static/live.js?v=%d%s" % (i, b"x" * 15_000))),
    "ids": (1000, lambda i: request(b"GET /", b"X-Request-Id: %d%s" % (i, b"b" * 120))),
}


def test_what_one_client_says_in_a_thousand_ways_is_not_kept(files: Files, program: Start) -> None:
    server = program(*flags_of(files, False))
    for path in (b"GET /", b"GET /live", b"GET /static/live.js", b"X /"):
        raw_http.talk(server, request(path, b"Connection: close"))
    for name, (number, way) in WAYS.items():
        before = settled(server)
        with raw_http.closing([raw_http.open_to(server)]) as clients:
            for i in range(number):
                if raw_http.ask(clients[-1], way(i)).status in (400, 431):
                    clients.append(raw_http.open_to(server))
        assert settled(server) < before + REST, name
