"""Clients that make the server take memory: it takes no more than it has, and gives it back."""

import contextlib
import functools
import itertools
import re
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

import limits
from http1 import head
from http1.server import LEAST_IDLE
from tests.faults.test_redis_faults import repeatedly
from tests.support import ROOT, raw_http
from tests.support.driven import timed
from tests.support.program import Program, Start
from tests.support.raw_http import HEALTH, VISIT
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

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

#: Heads too long for all such connections to share one.
LONG = 2 * head.MAX_CACHED

WAITS = "a page that waits, and further bytes"

#: What each of many clients sends, by what it makes the server keep.
STATES = {
    "nothing": b"",
    "an answer": request(b"GET /healthz"),
    "half a head": request(b"GET /", fields(100)[:-2], size=16_000)[:-2],
    "half a body": request(b"POST /", fields(120)[:-2], b"Content-Length: 65536", size=LONG)
    + b"x" * 65_500,
    "half a body that is kept": request(
        b"PUT /faults", fields(120)[:-2], b"Content-Length: 4096", size=LONG
    )
    + b"x" * 4000,
    # As the live page asks for it.
    "a stream": request(b"GET /live/events?last=5m"),
    "a stream, and further bytes": request(b"GET /live/events?last=5m") + JUNK,
    WAITS: request(b"GET /?wait=3s", fields(100)[:-2], size=16_000) + JUNK,
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


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def over_tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def flags(over_tls: bool, folder: Path, valkey: Valkey) -> list[str]:
    own = ["--redis-timeout=60", "--access-log=false", "--faults", f"--redis-url={valkey.url}"]
    file = folder / "pair.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    return own + [f"--tls-cert={file}", f"--tls-key={file}"] * over_tls


#: Control groups of version 2, and of version 1: where they are, their limits, and their kills.
GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
)


@contextlib.contextmanager
def limited(most: int) -> Iterator[tuple[str, ...]]:
    """Yield what runs Python in so many bytes of memory, where the machine lets a test say so."""
    name = f"friendlyhello-{uuid.uuid4().hex}"
    for parent, limit, events in GROUPS:
        group = parent / name
        if not (parent / "cgroup.procs").exists():
            continue
        with contextlib.ExitStack() as stack:
            try:
                group.mkdir()
                stack.callback(group.rmdir)  # its processes have ended
                (group / limit).write_text(str(most))
            except OSError:
                continue
            enter = f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"'
            yield "sh", "-c", enter, sys.executable
            assert "oom_kill 0\n" in (group / events).read_text()
            return
    yield (sys.executable,)


@pytest.fixture
def server(flags: list[str], program: Start) -> Iterator[Program]:
    """A server that has no more memory than in a container."""
    with raw_http.many_descriptors(), limited(LIMIT) as python:
        one = program(*flags, python=python)
        one.wait_for(b"counter on")
        yield one
        one.close()


def connected(server: Program, over_tls: bool, seconds: float = PATIENCE) -> socket.socket:
    client = raw_http.open_to(server, seconds)
    if over_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = context.wrap_socket(client)
    return client


@contextlib.contextmanager
def crowd(
    server: Program, number: int, sent: bytes, over_tls: bool
) -> Iterator[list[socket.socket]]:
    """Clients that send the same, as far as the server takes it, and then nothing."""
    with raw_http.closing([]) as clients:
        for _ in range(number):
            with contextlib.suppress(OSError):  # there was no room, or it is closed
                clients.append(connected(server, over_tls and bool(sent), 0.2))
                clients[-1].settimeout(0)
                for at in range(0, len(sent), 16_384):
                    clients[-1].sendall(sent[at : at + 16_384])
        yield clients


#: What the others ask for, one after the other.
PROBES = (HEALTH, request(b"GET /readyz"), VISIT, request(b"GET /metrics"))


@contextlib.contextmanager
def answered(server: Program, over_tls: bool) -> Iterator[list[raw_http.Answer]]:
    """Ask all the while, each time on a connection of its own; the list gets the answers.

    A client that is late with its request is idle, and may have to make room: it asks again.
    """
    answers: list[raw_http.Answer] = []
    failed: list[object] = []
    probes = itertools.cycle(PROBES)

    def ask() -> None:
        probe, is_late = next(probes), True
        while is_late:
            begun, is_late = time.monotonic(), False
            try:
                with connected(server, over_tls) as client:
                    answers.append(raw_http.ask(client, probe))
            except Exception as error:
                is_closed = isinstance(error, ConnectionError | ssl.SSLEOFError)
                is_late = is_closed and time.monotonic() > begun + LEAST_IDLE
                if not is_late:
                    failed.append((probe, error))

    with repeatedly(ask, 0.02):
        yield answers
    assert not failed, failed[0]
    assert {one.status for one in answers} == {200}
    numbers = [one.visit for one in answers[PROBES.index(VISIT) :: len(PROBES)]]
    assert None not in numbers
    assert len(set(numbers)) == len(numbers)


settled = functools.partial(raw_http.settled, raw_http.memory, pause=0.3)


@pytest.mark.parametrize("state", STATES)
def test_a_connection_takes_no_more_than_is_documented(
    state: str, over_tls: bool, flags: list[str], program: Start
) -> None:
    server, sent, number = program(*flags), STATES[state], 150
    with crowd(server, 50, sent, over_tls):  # what is needed once, is there
        before = settled(server)
        with crowd(server, number, sent, over_tls):
            each = (settled(server) - before) / number / 1000
    print(f"{state}: {each:.1f} kB")
    most = DOCUMENTED[state][over_tls]
    assert each <= most <= (limits.TLS_CONNECTION if over_tls else limits.CONNECTION) / 1000


def come_and_go(server: Program, number: int, sent: bytes, over_tls: bool, most: int) -> None:
    """Have a crowd come; as soon as it has left, the server takes no more than this memory.

    :arg most: bytes.
    """
    with answered(server, over_tls) as answers, crowd(server, number, sent, over_tls):
        there = len(answers)
        wait_until(lambda: len(answers) > there + len(PROBES))
        assert raw_http.memory(server) < LIMIT
    _, seconds = timed(server, lambda: wait_until(lambda: raw_http.memory(server) < most))
    print(f"{number}: {len(answers)} answers, back after {seconds:.1f} s")
    assert seconds < BACK + 2


@pytest.mark.parametrize("state", STATES)
def test_a_crowd_finds_room_or_not_and_all_others_are_answered(
    state: str, over_tls: bool, server: Program
) -> None:
    # Those that wait for the server, not it for them, make no room.
    many = 200 if state == WAITS else CLIENTS[over_tls]
    for number, more in (1, LIMIT), (many, REST), (many, REST):
        come_and_go(server, number, STATES[state], over_tls, settled(server) + more)


LEAVES: tuple[Callable[[socket.socket], None], ...] = (
    socket.socket.close,
    lambda client: client.shutdown(socket.SHUT_WR),
    raw_http.reset,
)


def test_clients_that_leave_before_the_answer_leave_nothing_behind(
    over_tls: bool, server: Program, valkey: Valkey
) -> None:
    body = request(b"PUT /faults", b"Content-Length: 4096") + b"x" * 4000
    some = request(b"POST /", b"Content-Length: 65536") + b"x" * 63_000
    before = raw_http.settled(raw_http.descriptors, server)
    sizes: list[int] = []
    while len(sizes) < 2 or sizes[-1] > sizes[-2] + REST:
        assert len(sizes) < 6, sizes
        for leave in LEAVES * 10:
            valkey.hang()
            with crowd(server, 40, VISIT, over_tls) as clients:
                for client in clients:
                    leave(client)
                with crowd(server, 10, some + body, over_tls) as clients:
                    for client in clients:
                        raw_http.reset(client)
            valkey.go_on()
        wait_until(lambda: raw_http.descriptors(server) <= before)
        sizes.append(settled(server))


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


@pytest.mark.parametrize("over_tls", [False])
def test_what_one_client_says_in_a_thousand_ways_is_not_kept(server: Program) -> None:
    for path in (b"GET /", b"GET /live", b"GET /static/live.js", b"X /"):
        raw_http.talk(server, request(path, b"Connection: close"))
    for name, (number, way) in WAYS.items():
        before = settled(server)
        with raw_http.closing([raw_http.open_to(server)]) as clients:
            for i in range(number):
                if raw_http.ask(clients[-1], way(i)).status in (400, 431):
                    clients.append(raw_http.open_to(server))
        assert settled(server) < before + REST, name
