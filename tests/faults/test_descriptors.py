"""More clients than there are file descriptors: the next visitors are answered all the same."""

import contextlib
import resource
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support import raw_http
from tests.support.processes import children
from tests.support.program import Program, Start
from tests.support.raw_http import HEALTH, VISIT
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: What the log says of a lack of room.
FULL = b"no room beside"

WATCH = b"GET /live/events HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def limited(program: Start, valkey: Valkey) -> Start:
    """Start a program that counts, with limits of its own; each waits long for Redis."""

    def start(soft: int, hard: int, *flags: str) -> Program:
        python = ("prlimit", f"--nofile={soft}:{hard}", sys.executable)
        patient = f"--redis-timeout={PATIENCE}"
        server = program(f"--redis-url={valkey.url}", patient, *flags, python=python)
        server.wait_for(b"counter on")
        return server

    return start


@contextlib.contextmanager
def idle_clients(server: Program, number: int) -> Iterator[list[socket.socket]]:
    """Connections that stay open once they have been answered; a new one may be about to ask."""
    with raw_http.closing([]) as clients:
        for _ in range(number):
            clients.append(raw_http.open_to(server))
            assert raw_http.ask(clients[-1], HEALTH).status == 200
        yield clients


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        client.settimeout(PATIENCE)


def test_soft_limit_is_raised_to_the_hard_one(limited: Start) -> None:
    for processes in (1, 2):
        server = limited(256, 4096, "--access-log=false", f"--processes={processes}")
        workers = [server.process.pid] if processes == 1 else children(server.process.pid)
        assert len(workers) == processes
        for pid in workers:
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (4096, 4096)
    with raw_http.logged(server) as log, idle_clients(server, 600) as clients:
        assert server.visits() == 1
        assert not any(map(is_closed, clients))
        assert FULL not in log


def test_clients_beyond_the_limit_take_the_place_of_those_idle_longest_and_of_nobody_else(
    limited: Start, valkey: Valkey
) -> None:
    server = limited(256, 256, "--access-log=false")
    with raw_http.logged(server) as log, raw_http.closing([]) as busy:
        for sent in [WATCH] * 20 + [VISIT] * 20:
            if sent is VISIT:
                valkey.hang()
            busy.append(raw_http.open_to(server))
            busy[-1].sendall(sent)
        with idle_clients(server, 400) as clients:
            valkey.go_on()
            numbers = [raw_http.read_answer(client).visit or 0 for client in busy[20:]]
            assert sorted(numbers) == list(range(1, 21))
            for number in range(21, 121):  # each on a connection of its own
                assert server.visits() == number
            closed = [is_closed(client) for client in clients]
            assert 150 < sum(closed) < 300  # no more than needed
            # The first to come, as they had been idle for longest; a few may share a millisecond.
            assert all(closed[: sum(closed) - 8])
            assert raw_http.ask(clients[-1]).visit == 121
            for stream in busy[:20]:
                assert stream.recv(65536).startswith(b"HTTP/1.1 200 OK")
                assert not is_closed(stream)
        server.signal()
        assert server.wait() == 0
    assert log.count(FULL) == 1
    assert b"Traceback" not in log


def test_clients_leave_the_rest_of_the_program_what_it_needs(
    limited: Start, valkey: Valkey
) -> None:
    server = limited(256, 256, "--access-log=false")
    with raw_http.logged(server) as log, raw_http.closing([]) as streams:
        for _ in range(300):  # nobody makes room for the last of them
            streams.append(raw_http.open_to(server))
            streams[-1].sendall(WATCH)
        wait_until(lambda: FULL in log)
        # It finds a Redis that was away.
        valkey.kill()
        wait_until(lambda: b"counter off" in log)
        valkey.start()
        wait_until(lambda: log.count(b"counter on") == 2)
        for stream in [*streams[:5], *streams[150:]]:
            stream.close()
        assert server.visits() == 1
        for path in ("live.css", "live.js", "stream.js", "live.svg"):
            assert server.get(f"/static/{path}")[0] == 200
        assert "process_max_fds 256.0" in server.get("/metrics")[1]
        assert b"Traceback" not in log


@pytest.mark.parametrize("lowered", [False, True], ids=["known", "unknown"])
def test_clients_for_whom_nobody_makes_room_wait_and_cost_nothing(
    lowered: bool, limited: Start, valkey: Valkey
) -> None:
    server = limited(96, 96, "--access-log=false")
    assert server.visits() == 1
    if lowered:  # as when the machine has no descriptors left: the number is not known before
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, 96))
    window = 1.0  # seconds
    with raw_http.logged(server) as log, raw_http.closing([]) as clients:
        valkey.hang()
        for _ in range(100):
            clients.append(raw_http.open_to(server))
            clients[-1].sendall(VISIT)
        wait_until(lambda: FULL in log)
        cpu, lines = raw_http.cpu_seconds(server), log.count(b"\n")
        time.sleep(window)  # in which next to nothing may happen
        cpu = (raw_http.cpu_seconds(server) - cpu) / window
        assert log.count(b"\n") == lines
        valkey.go_on()
        # Those that it has are served, and become idle, and so are then the others.
        numbers = [raw_http.read_answer(client).visit or 0 for client in clients]
        assert sorted(numbers) == list(range(2, 102))
        assert log.count(FULL) == 1
        assert (b"Too many open files" in log) is lowered
    print(f"no room: {cpu:.0%} CPU")
    assert cpu < 0.5
    assert server.visits() == 102
