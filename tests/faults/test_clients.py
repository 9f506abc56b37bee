"""Clients that misbehave: each ends in a refusal, and none in a visit that nobody asked for."""

import contextlib
import itertools
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from limits import HTTP
from tests.faults.test_redis_faults import repeatedly
from tests.support import raw_http
from tests.support.driven import timed
from tests.support.program import Program, Start
from tests.support.raw_http import HEALTH, LAST, VISIT, Bytes
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until
from tests.watch.test_logs import whole_lines

MB = 1 << 20
AT_MOST = 64 * MB  # sent of a body that never ends

#: The outcome of a connection that was closed without an answer.
CLOSED = 0
TAKEN = (200,)
REFUSED = (400, CLOSED)
# The RFC lets a recipient take it, and lets it refuse it.
EITHER = (200, 400, CLOSED)
TOO_LARGE = (400, 413, 414, 431, CLOSED)
NO_CODING = (400, 501, CLOSED)
NO_VERSION = (400, 505, CLOSED)


class Row(NamedTuple):
    """What a client sends, and what may come of it."""

    name: str
    sent: Bytes
    outcomes: tuple[int, ...] = REFUSED
    visits: int = 0  # that it may count; those answered with 200 do count
    cut: bool = False  # nothing complete was sent, and the client ends it


def get(*lines: bytes, body: bytes = b"", first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: a", *lines, b"", b""]) + body


def chunked(body: bytes) -> bytes:
    return get(b"Transfer-Encoding: chunked", body=body)


def requesting(line: bytes) -> bytes:
    return get(first=line)


def coding(value: bytes) -> bytes:
    return get(b"Transfer-Encoding: " + value, body=b"5\r\nhello\r\n0\r\n\r\n")


def length(*values: bytes) -> bytes:
    return get(*(b"Content-Length: " + value for value in values), body=b"hello")


def host(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def endless(first: bytes, piece: bytes, size: int = AT_MOST) -> Callable[[], Iterable[bytes]]:
    """What goes on for so many bytes."""
    return lambda: itertools.chain([first], itertools.repeat(piece, size // len(piece)))


SOME = b"x" * 65536
CHUNKED = get(b"Transfer-Encoding: chunked")

TLS_HELLO = (
    b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(range(32)) + b"\x20" + bytes(32)
    + b"\x00\x04\x13\x01\x13\x02\x01\x00\x00\x77" + bytes(119)
)  # fmt: skip


def each(
    name: str,
    make: Callable[[bytes], bytes],
    values: list[bytes],
    outcomes: tuple[int, ...] = REFUSED,
    cut: bool = False,
) -> list[Row]:
    """Rows that differ in a value; those that are taken count a visit."""
    visits = int(outcomes is TAKEN)
    return [Row(f"{name} {one[-40:]!r}", make(one), outcomes, visits, cut) for one in values]


ROWS = [
    # Large. A server may close before it has read what it refuses.
    Row("header of 1 MB", endless(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", SOME, MB), TOO_LARGE),
    Row("10,000 header lines", endless(b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n" * 10_000),
        TOO_LARGE),
    Row("URL of 128 kB", endless(b"GET /?", SOME, MB // 8), TOO_LARGE),
    Row("body of 1 GB", endless(get(b"Content-Length: 1073741824"), SOME), TOO_LARGE),
    Row("chunked body without end", endless(CHUNKED, b"10000\r\n" + SOME + b"\r\n"), TOO_LARGE),
    Row("chunks of one byte without end", endless(CHUNKED, b"1\r\nx\r\n" * 10_000, 4 * MB),
        TOO_LARGE),
    Row("chunk of 1 GB", endless(CHUNKED + b"40000000\r\n", SOME), TOO_LARGE),
    Row("request line without end", endless(b"", SOME), TOO_LARGE),
    Row("chunk size without end", endless(CHUNKED, b"0" * 65536), TOO_LARGE),
    # RFC 9112, 7.1: chunk sizes.
    *each("chunk size", lambda size: chunked(size + b"\r\nhello\r\n0\r\n\r\n"), [
        b"FFFFFFFFFFFFFFFFF", b"-5", b"+5", b"five", b"0x5", b"0_5", b"", b" 5", b"5 ",
    ]),
    *each("chunks", chunked, [
        b"10000000000000000\r\n0\r\n\r\n",
        *(b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n"),
        *(b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n", b"5\r\nhello\r\n0\n\n"),
        b"5;\nx\r\nhello\r\n0\r\n\r\n",
    ]),
    Row("chunk size of 2**32+5", chunked(b"100000005\r\nhello\r\n0\r\n\r\n"), cut=True),
    # 7.1.1 and 7.1.2 want these taken.
    *each("chunks", chunked, [
        b"5;a=b\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
    ], TAKEN),
    # RFC 9112, 6.2 and 6.3: how long a body is. 6.3 (5) lets a list of equal lengths be taken for
    # one of them, and lets it be refused.
    *each("length", length, [
        *(b"5, 6", b"5, 5", b"5,", b"-5", b"+5", b"", b"0x5", b"0_5", b"5.0", b"5 5"),
        *("５".encode(), b"18446744073709551621", b"9" * 5_000),
    ]),
    Row("lengths that differ", length(b"5", b"6")),
    Row("lengths that differ, the longer first", length(b"6", b"5")),
    Row("equal lengths on two lines", length(b"5", b"5")),
    Row("length before a coding", get(b"Content-Length: 5", b"Transfer-Encoding: chunked",
        body=b"0\r\n\r\n")),
    Row("length after a coding", get(b"Transfer-Encoding: chunked", b"Content-Length: 5",
        body=b"0\r\n\r\n")),
    Row("a request as the body", get(b"Content-Length: %d" % len(VISIT), body=VISIT), TAKEN, 1),
    # RFC 9112, 6.1: codings.
    *each("coding", coding, [
        *(b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity"),
        *(b"xchunked", b"chunked;a=b", b'"chunked"', b"", b"\x0bchunked", b"chunked\xa0"),
    ], NO_CODING),
    Row("coding chunked twice", get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked",
        body=b"0\r\n\r\n"), NO_CODING),
    Row("coding in capitals", coding(b"CHUNKED"), TAKEN, 1),
    # 6.1: HTTP/1.0 knows no chunks, so nothing may be read after what claims to have some.
    Row("coding in HTTP/1.0", get(b"Connection: keep-alive", b"Transfer-Encoding: chunked",
        first=b"GET / HTTP/1.0", body=b"0\r\n\r\n" + VISIT), EITHER, 1),
    # 9.6: nothing after "close", which is one of a list of options.
    *each("a request after", lambda value: get(b"Connection: " + value, body=VISIT), [
        b"close", b"x, close", b"x,\tclose", b"close, x", b"keep-alive\r\nConnection: close",
    ], TAKEN),
    Row("four requests after close", get(b"Connection: close", body=VISIT * 4), TAKEN, 1),
    Row("requests ahead", VISIT * 20, TAKEN, 20),
    Row("a request after HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n" + VISIT, TAKEN, 1),
    Row("a request after a malformed one", host(b"a b") + VISIT),
    Row("a request after a length too large", get(b"Content-Length: 99999999", body=VISIT),
        TOO_LARGE),
    Row("a request after two lengths", length(b"5", b"6") + VISIT),
    # RFC 9112, 2.2: line ends. It lets a recipient take a bare LF for one; others do not. A bare CR
    # makes its element invalid.
    *each("line ends", bytes, [
        *(b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
        *(b"GET / HTTP/1.1\r\nHost: a\r\n\n", b"GET / HTTP/1.1\rHost: a\r\r"),
    ]),
    Row("CR before a coding", get(b"X: y\rTransfer-Encoding: chunked", body=b"0\r\n\r\n")),
    # 2.2 wants one empty line before a request ignored.
    Row("an empty line first", b"\r\n" + VISIT, TAKEN, 1),
    Row("two empty lines first", b"\r\n\r\n" + VISIT, TAKEN, 1),
    # RFC 9112, 5: header lines.
    *each("header", get, [
        *(b"X: y\nZ: z", b"X: y\rZ: z", b"X\rY: z", b"X: y\r", b"X: y\r\n z", b"X: y\r\n\tz"),
        *(b"X : y", b"X\t: y", b"X", b": x", b"X: y\0z", b"X\0: y", b"X: \x01\x1b[2J\x7f"),
    ]),
    Row("folded coding", get(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n")),
    Row("space before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    Row("space before a coding's colon", get(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
    Row("space before a length's colon", get(b"Content-Length : 5", body=b"hello")),
    # RFC 9112, 3.2: Host, which is sent empty where there is none to name.
    *each("Host", host, [
        *(b"a, b", b"a\0b", b"a\x01\x1b[2J\x7f", b"a b", b"a/b", b"a@b", b"a:b", b"a:1:2", b"[::1"),
        *(b"[a]x", b"a%0", b'"a"', b"a\\b", b"a?b", b"a\xff", b"a%0d%0aX:%20y"),
        *(b"a\r\nHost: b", b"a\r\nHost: a"),
    ]),
    *each("Host", host, [b"[::1]:80", b""], TAKEN),
    Row("no Host", b"GET / HTTP/1.1\r\n\r\n"),
    Row("no Host in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", TAKEN, 1),
    # RFC 9112, 3: the request line.
    *each("request line", requesting, [
        *(b"GET /\r HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\r", b"\rGET / HTTP/1.1"),
        *(b"\r\n\rGET / HTTP/1.1", b"GET /\0 HTTP/1.1", b"GET /\x01\x1b[2J\x7f HTTP/1.1"),
        *(b"GET: / HTTP/1.1", b"  ", b"GET", b"GET /", b"GET / / HTTP/1.1", b"GET  / HTTP/1.1"),
        *(b"GET\t/\tHTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 "),
    ]),
    *each("request line", requesting, [
        *(b"GET / HTTP/9.9", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/11.1"),
        *(b"GET / HTTP/1.10", b"GET / http/1.1", b"GET / HTTP/1.1x"),
    ], NO_VERSION),
    Row("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", NO_VERSION),
    Row("h2c", get(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings",
        b"HTTP2-Settings: AAMAAABkAAQAAP__"), TAKEN, 1),
    Row("method in lower case", requesting(b"get / HTTP/1.1"), (400, 405, 501, CLOSED)),
    Row("method overridden", get(b"X-HTTP-Method-Override: GET", b"Content-Length: 0",
        first=b"POST / HTTP/1.1"), (405,)),
    *each("no HTTP", bytes, [
        *(b"\r\n\r\n", b"\xde\xad\xbe\xef" * 16, TLS_HELLO, b"SSH-2.0-OpenSSH_9.6\r\n"),
        b"EHLO example.org\r\nMAIL FROM:<a@example.org>\r\n\r\n",
    ]),
    # 3.2.2 has it taken for "/", whatever Host says, which has to be there all the same.
    *each("absolute form", requesting, [
        b"GET http://a/ HTTP/1.1", b"GET http://b:80/ HTTP/1.1", b"GET HTTPS://a?x HTTP/1.1",
    ], TAKEN),
    Row("absolute form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    Row("absolute form in HTTP/1.0", b"GET http://a/ HTTP/1.0\r\n\r\n", TAKEN, 1),
    Row("absolute form with a user", requesting(b"GET http://u@a/ HTTP/1.1")),
    Row("absolute form of two Hosts", get(b"Host: b", first=b"GET http://a/ HTTP/1.1")),
    Row("authority form", requesting(b"CONNECT a:80 HTTP/1.1"), (400, 404, 405, 501, CLOSED)),
    *each("target", requesting, [
        *(b"GET ftp://a/ HTTP/1.1", b"GET * HTTP/1.1", b"GET /#x HTTP/1.1", b"GET /x/.. HTTP/1.1"),
    ], (400, 404, CLOSED)),
    # Cut off: what came is no request.
    *each("cut", bytes, [
        *(b"", b"GET / HT", b"GET /\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"),
        *(b"GET / HTTP/1.1\r\nHost: a\r\nX: y", b"GET / HTTP/1.1\r\nHost: a\r\n\r"),
        *(get(b"Content-Length: 5"), get(b"Content-Length: 5", body=b"hell")),
        get(b"Content-Length: 5", b"Expect: 100-continue"),
    ], cut=True),
    *each("chunks cut", chunked, [
        *(b"", b"5", b"5\r\nhell", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n"),
        b"5\r\nhello\r\n0\r\n\r",
    ], cut=True),
    Row("second request cut", VISIT + b"GET / HTTP/1.1\r\nHo", (200, 400, CLOSED), 1, cut=True),
]  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Program, Valkey]]:
    """A program and a Valkey for the whole table, of which no row breaks a line of the log."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hello-"))
        valkey = Valkey(Path(folder))
        stack.callback(valkey.close)
        valkey.start()
        # No deadline is promised here, and on a busy machine Redis may have to be waited for.
        flags = f"--redis-timeout={PATIENCE}", "--log-format=json"
        program = Program(f"--redis-url={valkey.url}", *flags)
        stack.callback(program.close)
        program.wait_for(b"counter on")
        with raw_http.logged(program) as log:
            yield program, valkey
            program.signal()
            assert program.process.wait(PATIENCE) == 0
    whole_lines(bytes(log), "json")


def outcomes_of(server: Program, row: Row) -> list[int]:
    """The statuses that a row is answered with."""
    sent = row.sent
    if isinstance(sent, bytes) and not row.cut:
        # A request that is taken must not swallow, or leave over, any byte of the next.
        sent += LAST
    answers = raw_http.talk(server, sent, half_close=row.cut)
    if answers and answers[-1].is_health:
        answers.pop()
    return [answer.status for answer in answers] or [CLOSED]


@contextlib.contextmanager
def taking(server: Program, most: int) -> Iterator[None]:
    """Assert that the memory grows by so many bytes at most meanwhile."""
    before = raw_http.memory(server)
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # VmHWM begins anew (proc(5))
    yield
    assert raw_http.memory(server, "VmHWM") - before < most


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_malformed_is_refused_and_neither_counted_nor_kept(
    row: Row, served: tuple[Program, Valkey]
) -> None:
    program, valkey = served
    before = valkey.counter()
    with taking(program, AT_MOST):
        outcomes, seconds = timed(program, lambda: outcomes_of(program, row))
    # Not only as the server grows tired of waiting for the rest.
    assert seconds < HTTP["header_timeout"] / 2
    # Asked by a visit that comes after: what counts late is seen too.
    number = program.visits()
    assert number is not None
    assert valkey.counter() == number
    counted = number - before - 1
    assert counted <= row.visits, (counted, outcomes)
    assert set(outcomes) <= set(row.outcomes)
    if not row.cut:  # else it may have gone before its answer came
        assert counted == outcomes.count(200)


#: Seconds that a slow client waits between two bytes.
BETWEEN_BYTES = 1.0


def median_latency(client: socket.socket, visits: int = 50) -> float:
    """Seconds that a visit takes."""
    latencies = []
    for _ in range(visits):
        start = time.perf_counter()
        assert raw_http.ask(client).visit
        latencies.append(time.perf_counter() - start)
    return statistics.median(latencies)


def test_thousands_of_idle_clients_and_hundreds_of_slow_ones_cost_a_visit_nothing(
    program: Start, valkey: Valkey
) -> None:
    with raw_http.many_descriptors() as most, raw_http.closing([]) as clients:
        flags = f"--redis-url={valkey.url}", f"--redis-timeout={PATIENCE}", "--access-log=false"
        server, number = program(*flags), min(5000, most - 200) // 100 * 100
        server.wait_for(b"counter on")
        with raw_http.open_to(server) as visitor:
            median_latency(visitor)
            alone = median_latency(visitor)
            before = raw_http.settled(raw_http.descriptors, server)
            used = raw_http.memory(server)
            while len(clients) < number:
                clients += [raw_http.open_to(server) for _ in range(100)]
                for client in clients[-100:]:
                    client.sendall(HEALTH)
                for client in clients[-100:]:
                    assert raw_http.read_answer(client).status == 200
            each, cpu = (raw_http.memory(server) - used) / number, raw_http.cpu_seconds(server)
            assert server.visits() == 101
            cpu = raw_http.cpu_seconds(server) - cpu
            slow = clients[:500]
            for client in slow:
                client.sendall(VISIT[:1])
            turns = itertools.product(VISIT[1:-2], slow)

            def send_byte() -> None:
                byte, client = next(turns)
                client.sendall(bytes([byte]))

            with repeatedly(send_byte, BETWEEN_BYTES / len(slow)):
                crowded = [median_latency(visitor) for _ in range(3)]
            assert raw_http.ask(clients[-1]).visit == 252
            # None was turned away.
            assert raw_http.settled(raw_http.descriptors, server) == before + number
            for client in clients:
                client.close()
            wait_until(lambda: raw_http.descriptors(server) == before)
            assert raw_http.ask(visitor).visit == 253
    slowed = statistics.median(crowded)
    print(f"{each / 1024:.1f} kB for each of {number} idle connections")
    print(f"median latency {alone * 1e3:.2f} ms alone, {slowed * 1e3:.2f} ms with 500 slow ones")
    assert cpu < 0.2, "a visit looks at each of them"
    # A server that waits for one client while others ask makes them wait for its next byte.
    assert slowed < alone + BETWEEN_BYTES / 4
