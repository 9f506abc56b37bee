"""Clients that misbehave: each ends in a refusal, and none in a visit that nobody asked for."""

import contextlib
import dataclasses
import itertools
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from limits import HTTP
from tests.support import raw_http
from tests.support.driven import timed
from tests.support.program import Program
from tests.support.raw_http import HEALTH, LAST, SECONDS_BETWEEN_BYTES, VISIT, Bytes
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until
from tests.watch.test_logs import whole_lines

Start = Callable[..., Program]
Property = Callable[[str, object], None]

MB = 1 << 20
AT_MOST = 64 * MB  # sent of a body that never ends

#: No deadline is promised here, and Redis may have to be waited for, on a busy machine or hung.
NO_HURRY = ("--redis-timeout=60",)

#: The outcome of a connection that was closed without an answer.
CLOSED = 0
TAKEN = (200,)
REFUSED = (400, CLOSED)
# The RFC lets a recipient take it, and lets it refuse it.
EITHER = (200, 400, CLOSED)
TOO_LARGE = (400, 413, 414, 431, CLOSED)
NO_CODING = (400, 501, CLOSED)
NO_VERSION = (400, 505, CLOSED)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a client sends, and what may come of it."""

    name: str
    sent: Bytes
    outcomes: tuple[int, ...] = REFUSED
    visits: int = 0  # that it may count; those answered with 200 do count
    cut: bool = False  # nothing complete was sent, and the client ends it

    @property
    def is_big(self) -> bool:
        return not isinstance(self.sent, bytes)


def get(*lines: bytes, body: bytes = b"", first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: a", *lines, b"", b""]) + body


def chunked(body: bytes) -> bytes:
    return get(b"Transfer-Encoding: chunked", body=body)


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
    Row("chunk size beyond 64 bits", chunked(b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size of 2**64", chunked(b"10000000000000000\r\n0\r\n\r\n")),
    Row("chunk size of 2**32+5", chunked(b"100000005\r\nhello\r\n0\r\n\r\n"), cut=True),
    Row("chunk size negative", chunked(b"-5\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size with a plus", chunked(b"+5\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size not hexadecimal", chunked(b"five\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size with 0x", chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size with an underscore", chunked(b"0_5\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size empty", chunked(b"\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size after a space", chunked(b" 5\r\nhello\r\n0\r\n\r\n")),
    Row("chunk size before a space", chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
    Row("chunk size ended by LF", chunked(b"5\nhello\r\n0\r\n\r\n")),
    Row("chunk size ended by CR", chunked(b"5\rhello\r\n0\r\n\r\n")),
    Row("chunk longer than its size", chunked(b"5\r\nhello!\r\n0\r\n\r\n")),
    Row("chunk data ended by LF", chunked(b"5\r\nhello\n0\r\n\r\n")),
    Row("last chunk without its empty line", chunked(b"5\r\nhello\r\n0\r\n")),
    Row("last chunk ended by LF", chunked(b"5\r\nhello\r\n0\n\n")),
    Row("LF in a chunk extension", chunked(b"5;\nx\r\nhello\r\n0\r\n\r\n")),
    # 7.1.1 and 7.1.2 want these taken.
    Row("chunk extension", chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), TAKEN, 1),
    Row("trailer", chunked(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"), TAKEN, 1),
    Row("chunked body", chunked(b"5\r\nhello\r\n0\r\n\r\n"), TAKEN, 1),
    # RFC 9112, 6.2 and 6.3: how long a body is.
    Row("lengths that differ", length(b"5", b"6")),
    Row("lengths that differ, the longer first", length(b"6", b"5")),
    Row("lengths that differ on one line", length(b"5, 6")),
    # 6.3 (5) lets a list of equal lengths be taken for one of them, and lets it be refused.
    Row("equal lengths on one line", length(b"5, 5")),
    Row("equal lengths on two lines", length(b"5", b"5")),
    Row("length and a comma", length(b"5,")),
    Row("length negative", length(b"-5")),
    Row("length with a plus", length(b"+5")),
    Row("length empty", length(b"")),
    Row("length hexadecimal", length(b"0x5")),
    Row("length with an underscore", length(b"0_5")),
    Row("length with a point", length(b"5.0")),
    Row("length of two words", length(b"5 5")),
    Row("length in digits of another script", length("５".encode())),
    Row("length beyond 64 bits", length(b"18446744073709551621")),
    Row("length of 5,000 digits", length(b"9" * 5_000)),
    Row("length before a coding", get(b"Content-Length: 5", b"Transfer-Encoding: chunked",
        body=b"0\r\n\r\n")),
    Row("length after a coding", get(b"Transfer-Encoding: chunked", b"Content-Length: 5",
        body=b"0\r\n\r\n")),
    Row("a request as the body", get(b"Content-Length: %d" % len(VISIT), body=VISIT), TAKEN, 1),
    # RFC 9112, 6.1: codings.
    Row("coding gzip", coding(b"gzip"), NO_CODING),
    Row("coding gzip, chunked", coding(b"gzip, chunked"), NO_CODING),
    Row("coding chunked, gzip", coding(b"chunked, gzip"), NO_CODING),
    Row("coding chunked, chunked", coding(b"chunked, chunked"), NO_CODING),
    Row("coding chunked twice", get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked",
        body=b"0\r\n\r\n"), NO_CODING),
    Row("coding identity", coding(b"identity"), NO_CODING),
    Row("coding xchunked", coding(b"xchunked"), NO_CODING),
    Row("coding chunked with a parameter", coding(b"chunked;a=b"), NO_CODING),
    Row("coding in quotes", coding(b'"chunked"'), NO_CODING),
    Row("coding empty", coding(b""), NO_CODING),
    Row("coding after a vertical tab", coding(b"\x0bchunked"), NO_CODING),
    Row("coding before a no-break space", coding(b"chunked\xa0"), NO_CODING),
    Row("coding in capitals", coding(b"CHUNKED"), TAKEN, 1),
    # 6.1: HTTP/1.0 knows no chunks, so nothing may be read after what claims to have some.
    Row("coding in HTTP/1.0", get(b"Connection: keep-alive", b"Transfer-Encoding: chunked",
        first=b"GET / HTTP/1.0", body=b"0\r\n\r\n" + VISIT), EITHER, 1),
    # 9.6: nothing after "close", which is one of a list of options.
    Row("a request after close", get(b"Connection: close", body=VISIT), TAKEN, 1),
    Row("four requests after close", get(b"Connection: close", body=VISIT * 4), TAKEN, 1),
    Row("a request after HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n" + VISIT, TAKEN, 1),
    Row("a request after a malformed one", host(b"a b") + VISIT),
    Row("a request after a length too large", get(b"Content-Length: 99999999", body=VISIT),
        TOO_LARGE),
    Row("a request after two lengths", length(b"5", b"6") + VISIT),
    Row("a request after close in a list", get(b"Connection: x, close", body=VISIT), TAKEN, 1),
    Row("a request after close and a tab", get(b"Connection: x,\tclose", body=VISIT), TAKEN, 1),
    Row("a request after close and another", get(b"Connection: close, x", body=VISIT), TAKEN, 1),
    Row("a request after close on a second line", get(b"Connection: keep-alive",
        b"Connection: close", body=VISIT), TAKEN, 1),
    # RFC 9112, 2.2: line ends. It lets a recipient take a bare LF for one; others do not.
    Row("lines ended by LF", b"GET / HTTP/1.1\nHost: a\n\n"),
    Row("headers ended by LF CRLF", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    Row("headers ended by CRLF LF", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    Row("LF in a header", get(b"X: y\nZ: z")),
    # 2.2: a bare CR makes its element invalid.
    Row("lines ended by CR", b"GET / HTTP/1.1\rHost: a\r\r"),
    Row("CR in a header", get(b"X: y\rZ: z")),
    Row("CR in a header's name", get(b"X\rY: z")),
    Row("CR at a header's end", get(b"X: y\r")),
    Row("CR before a coding", get(b"X: y\rTransfer-Encoding: chunked", body=b"0\r\n\r\n")),
    Row("CR in the request line", get(first=b"GET /\r HTTP/1.1")),
    Row("CR at the request line's end", get(first=b"GET / HTTP/1.1\r")),
    Row("CR CR at the request line's end", get(first=b"GET / HTTP/1.1\r\r")),
    Row("CR before the request line", get(first=b"\rGET / HTTP/1.1")),
    Row("CR after an empty line", get(first=b"\r\n\rGET / HTTP/1.1")),
    # 2.2 wants one empty line before a request ignored.
    Row("an empty line first", b"\r\n" + VISIT, TAKEN, 1),
    Row("two empty lines first", b"\r\n\r\n" + VISIT, TAKEN, 1),
    # RFC 9112, 5: header lines.
    Row("folded line", get(b"X: y", b" z")),
    Row("folded line with a tab", get(b"X: y", b"\tz")),
    Row("folded coding", get(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n")),
    Row("space before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    Row("space before the colon", get(b"X : y")),
    Row("tab before the colon", get(b"X\t: y")),
    Row("space before a coding's colon", get(b"Transfer-Encoding : chunked",
        body=b"0\r\n\r\n")),
    Row("space before a length's colon", get(b"Content-Length : 5", body=b"hello")),
    Row("header without a colon", get(b"X")),
    Row("header without a name", get(b": x")),
    Row("NUL in a header", get(b"X: y\0z")),
    Row("NUL in a header's name", get(b"X\0: y")),
    Row("control characters in a header", get(b"X: \x01\x1b[2J\x7f")),
    # RFC 9112, 3.2: Host.
    Row("no Host", b"GET / HTTP/1.1\r\n\r\n"),
    Row("no Host in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", TAKEN, 1),
    Row("two Hosts", get(b"Host: b")),
    Row("two equal Hosts", get(b"Host: a")),
    Row("Hosts in a list", host(b"a, b")),
    Row("Host with a NUL", host(b"a\0b")),
    Row("Host with control characters", host(b"a\x01\x1b[2J\x7f")),
    Row("Host with a space", host(b"a b")),
    Row("Host with a path", host(b"a/b")),
    Row("Host with a user", host(b"a@b")),
    Row("Host with a port that is none", host(b"a:b")),
    Row("Host with two ports", host(b"a:1:2")),
    Row("Host with half an IPv6 address", host(b"[::1")),
    Row("Host with brackets", host(b"[a]x")),
    Row("Host with half an encoding", host(b"a%0")),
    Row("Host with quotes", host(b'"a"')),
    Row("Host with a backslash", host(b"a\\b")),
    Row("Host with a query", host(b"a?b")),
    Row("Host with bytes beyond ASCII", host(b"a\xff")),
    Row("IPv6 Host", host(b"[::1]:80"), TAKEN, 1),
    Row("Host with an encoded line end", host(b"a%0d%0aX:%20y")),
    Row("Host empty", host(b""), TAKEN, 1),  # 3.2 has it sent where there is none to name
    # RFC 9112, 3: the request line.
    Row("NUL in the request line", get(first=b"GET /\0 HTTP/1.1")),
    Row("control characters in the request line", get(first=b"GET /\x01\x1b[2J\x7f HTTP/1.1")),
    Row("HTTP/9.9", get(first=b"GET / HTTP/9.9"), NO_VERSION),
    Row("HTTP/2.0", get(first=b"GET / HTTP/2.0"), NO_VERSION),
    Row("HTTP/0.9 as a version", get(first=b"GET / HTTP/0.9"), NO_VERSION),
    Row("HTTP/11.1", get(first=b"GET / HTTP/11.1"), NO_VERSION),
    Row("HTTP/1.10", get(first=b"GET / HTTP/1.10"), NO_VERSION),
    Row("http/1.1", get(first=b"GET / http/1.1"), NO_VERSION),
    Row("HTTP/1.1x", get(first=b"GET / HTTP/1.1x"), NO_VERSION),
    Row("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", NO_VERSION),
    Row("h2c", get(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings",
        b"HTTP2-Settings: AAMAAABkAAQAAP__"), TAKEN, 1),
    Row("method in lower case", get(first=b"get / HTTP/1.1"), (400, 405, 501, CLOSED)),
    Row("method with a colon", get(first=b"GET: / HTTP/1.1")),
    Row("method overridden", get(b"X-HTTP-Method-Override: GET", b"Content-Length: 0",
        first=b"POST / HTTP/1.1"), (405,)),
    Row("request line empty", b"\r\n\r\n"),
    Row("request line of spaces", get(first=b"  ")),
    Row("request line of one word", get(first=b"GET")),
    Row("request line without a version", get(first=b"GET /")),
    Row("request line of four words", get(first=b"GET / / HTTP/1.1")),
    Row("two spaces in the request line", get(first=b"GET  / HTTP/1.1")),
    Row("tabs in the request line", get(first=b"GET\t/\tHTTP/1.1")),
    Row("space before the request line", get(first=b" GET / HTTP/1.1")),
    Row("space after the request line", get(first=b"GET / HTTP/1.1 ")),
    Row("not HTTP", b"\xde\xad\xbe\xef" * 16),
    Row("not HTTP, with line ends", b"EHLO example.org\r\nMAIL FROM:<a@example.org>\r\n\r\n"),
    Row("TLS", TLS_HELLO),
    Row("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
    # 3.2.2 has it taken for "/", whatever Host says, which has to be there all the same.
    Row("absolute form", get(first=b"GET http://a/ HTTP/1.1"), TAKEN, 1),
    Row("absolute form of another host", get(first=b"GET http://b:80/ HTTP/1.1"), TAKEN, 1),
    Row("absolute form without a path", get(first=b"GET HTTPS://a?x HTTP/1.1"), TAKEN, 1),
    Row("absolute form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    Row("absolute form in HTTP/1.0", b"GET http://a/ HTTP/1.0\r\n\r\n", TAKEN, 1),
    Row("absolute form with a user", get(first=b"GET http://u@a/ HTTP/1.1")),
    Row("absolute form of two Hosts", get(b"Host: b", first=b"GET http://a/ HTTP/1.1")),
    Row("absolute form of FTP", get(first=b"GET ftp://a/ HTTP/1.1"), (400, 404, CLOSED)),
    Row("authority form", get(first=b"CONNECT a:80 HTTP/1.1"), (400, 404, 405, 501, CLOSED)),
    Row("asterisk form", get(first=b"GET * HTTP/1.1"), (400, 404, CLOSED)),
    Row("fragment", get(first=b"GET /#x HTTP/1.1"), (400, 404, CLOSED)),
    Row("dot segments", get(first=b"GET /x/.. HTTP/1.1"), (400, 404, CLOSED)),
    # Cut off: what came is no request.
    Row("nothing", b"", cut=True),
    Row("request line cut", b"GET / HT", cut=True),
    Row("HTTP/0.9", b"GET /\r\n", cut=True),
    Row("request line alone", b"GET / HTTP/1.1\r\n", cut=True),
    Row("headers cut", b"GET / HTTP/1.1\r\nHost: a\r\nX: y", cut=True),
    Row("headers without their end", b"GET / HTTP/1.1\r\nHost: a\r\n", cut=True),
    Row("headers without their last LF", b"GET / HTTP/1.1\r\nHost: a\r\n\r", cut=True),
    Row("body missing", get(b"Content-Length: 5"), cut=True),
    Row("body cut", get(b"Content-Length: 5", body=b"hell"), cut=True),
    Row("body awaited", get(b"Content-Length: 5", b"Expect: 100-continue"), cut=True),
    Row("chunks missing", chunked(b""), cut=True),
    Row("chunk size cut", chunked(b"5"), cut=True),
    Row("chunk cut", chunked(b"5\r\nhell"), cut=True),
    Row("last chunk missing", chunked(b"5\r\nhello\r\n"), cut=True),
    Row("last chunk cut", chunked(b"5\r\nhello\r\n0\r\n"), cut=True),
    Row("last chunk without its last LF", chunked(b"5\r\nhello\r\n0\r\n\r"), cut=True),
    Row("second request cut", VISIT + b"GET / HTTP/1.1\r\nHo", (200, 400, CLOSED), 1, cut=True),
]  # fmt: skip

FORGED = b"[I 261124 09:00:00 server:1] forged"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Program, Valkey]]:
    """A program and a Valkey for the whole table: a row asks what it adds to the counter."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hello-")))
        valkey = Valkey(folder)
        stack.callback(valkey.close)
        valkey.start()
        program = Program(f"--redis-url={valkey.url}", *NO_HURRY, "--access-log=false")
        stack.callback(program.close)
        program.wait_for(b"counter on")
        with raw_http.logged(program):
            yield program, valkey


def start_counting(program: Start, valkey: Valkey, *flags: str) -> Program:
    server = program(f"--redis-url={valkey.url}", "--access-log=false", *NO_HURRY, *flags)
    server.wait_for(b"counter on")
    return server


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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_malformed_is_refused_and_not_counted(
    row: Row, served: tuple[Program, Valkey]
) -> None:
    program, valkey = served
    before = valkey.counter()
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


def flood(client: socket.socket, piece: bytes) -> None:
    """Send until the server takes no more, for a second."""
    client.settimeout(1)  # in which it may take nothing
    with contextlib.suppress(OSError):
        for _ in range(AT_MOST // len(piece)):
            client.sendall(piece)


@contextlib.contextmanager
def taking(server: Program, most: int) -> Iterator[None]:
    """Assert that the memory grows by so many bytes at most meanwhile, and that visits count."""
    before = raw_http.memory(server)
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # VmHWM begins anew (proc(5))
    yield
    assert raw_http.memory(server, "VmHWM") - before < most


def test_clients_that_send_much_or_do_not_read_take_little_memory(
    program: Start, valkey: Valkey
) -> None:
    server = start_counting(program, valkey)
    assert server.visits() == 1
    with raw_http.logged(server), taking(server, 64 * MB):
        for row in ROWS:
            if row.is_big:
                outcomes_of(server, row)
    assert server.visits() == 2
    with taking(server, 16 * MB), raw_http.open_to(server) as client:
        flood(client, HEALTH * 1000)  # and reads no answer
        raw_http.reset(client)
    for number, piece in enumerate((SOME, HEALTH * 1000), 3):
        valkey.hang()
        with taking(server, 16 * MB), raw_http.open_to(server) as client:
            client.sendall(VISIT)
            flood(client, piece)  # while its answer is pending
            raw_http.reset(client)
        valkey.go_on()
        assert server.visits() == number  # that of the client that has gone


def test_pipelined_visits_are_answered_in_order(program: Start, valkey: Valkey) -> None:
    server = start_counting(program, valkey)
    answers = raw_http.talk(server, VISIT * 20 + LAST)
    assert [answer.status for answer in answers] == [200] * 21
    assert [answer.visit for answer in answers[:-1]] == list(range(1, 21))
    assert valkey.counter() == 20


#: How clients leave.
LEAVES: tuple[Callable[[socket.socket], None], ...] = (
    socket.socket.close,
    lambda client: client.shutdown(socket.SHUT_WR),
    raw_http.reset,
)


def test_clients_that_leave_before_the_answer_leave_nothing_behind(
    program: Start, valkey: Valkey
) -> None:
    number = 200
    server = start_counting(program, valkey)
    bystander = raw_http.open_to(server)

    def come_and_go(leave: Callable[[socket.socket], None]) -> None:
        valkey.hang()
        with raw_http.closing([raw_http.open_to(server) for _ in range(number)]) as clients:
            for client in clients:
                client.sendall(VISIT)
            for _ in range(2):  # then the program has read what was sent before
                assert raw_http.ask(bystander, HEALTH).status == 200
            for client in clients:
                leave(client)
            assert raw_http.ask(bystander, HEALTH).status == 200
            valkey.go_on()
            for client in clients:
                if client.fileno() != -1:
                    answers = raw_http.answers_in(raw_http.read_to_end(client))
                    assert [answer.status for answer in answers] == [200]
        wait_until(lambda: raw_http.descriptors(server) <= before)

    with bystander:
        assert raw_http.ask(bystander, HEALTH).status == 200
        before = raw_http.settled_descriptors(server)
        # Garbage is collected now and then. What is kept, 5 kB for the least of a request,
        # makes every group of rounds grow.
        rounds = 0
        grown = float("inf")
        while grown > 3 * number * 2_000:
            used = raw_http.memory(server)
            for leave in LEAVES:
                come_and_go(leave)
            grown = raw_http.memory(server) - used
            rounds += 3
            assert rounds <= 30, "memory grows with each client"
        last = server.visits()  # behind all that the others asked for
        assert last is not None
        assert last <= valkey.counter()  # it may be the number of one who has gone
        assert last <= rounds * number + 1


def median_latency(client: socket.socket, visits: int = 50) -> float:
    """Seconds that a visit takes."""
    latencies = []
    for _ in range(visits):
        start = time.perf_counter()
        assert raw_http.ask(client).visit
        latencies.append(time.perf_counter() - start)
    return statistics.median(latencies)


def test_slow_clients_do_not_slow_the_others(
    program: Start, valkey: Valkey, record_property: Property
) -> None:
    server = start_counting(program, valkey)
    with raw_http.open_to(server) as visitor:
        median_latency(visitor)
        alone = [median_latency(visitor)]
        before = raw_http.settled_descriptors(server)
        with raw_http.closing([raw_http.open_to(server) for _ in range(500)]) as clients:
            crowded: list[float] = []
            with raw_http.Trickle(clients, b"GET / HTTP/1.1\r\nHost: a\r\nX: y") as trickle:
                wait_until(lambda: trickle.rounds >= 1)
                while trickle.rounds < 2 or len(crowded) < 3:
                    crowded.append(median_latency(visitor))
            assert raw_http.descriptors(server) == before + 500  # and none was turned away
        wait_until(lambda: raw_http.descriptors(server) == before)
        alone.append(median_latency(visitor))
        visits = 50 * (len(alone) + len(crowded) + 1)
        assert valkey.counter() == visits
    usual, slowed = max(alone), statistics.median(crowded)
    print(f"median latency {usual * 1e3:.2f} ms alone, {slowed * 1e3:.2f} ms with 500 slow ones")
    record_property("latency_alone_ms", usual * 1e3)
    record_property("latency_with_slow_clients_ms", slowed * 1e3)
    # A server that waits for one client while others ask makes them wait for its next byte.
    assert slowed < usual + SECONDS_BETWEEN_BYTES / 4


def test_idle_connections_cost_little(
    program: Start, valkey: Valkey, record_property: Property
) -> None:
    with raw_http.many_descriptors() as most:
        number = min(5000, most - 200)
        server = start_counting(program, valkey)
        with raw_http.open_to(server) as visitor, raw_http.closing([]) as clients:
            assert raw_http.ask(visitor).visit == 1
            before, used = raw_http.descriptors(server), raw_http.memory(server)
            while len(clients) < number:
                some = [raw_http.open_to(server) for _ in range(min(100, number - len(clients)))]
                clients += some
                for client in some:
                    client.sendall(HEALTH)
                for client in some:
                    assert raw_http.read_answer(client).status == 200
            assert raw_http.descriptors(server) == before + number
            each = (raw_http.memory(server) - used) / number
            cpu = raw_http.cpu_seconds(server)
            assert server.visits() == 2
            cpu = raw_http.cpu_seconds(server) - cpu
            assert raw_http.ask(clients[0]).visit == 3
            assert raw_http.ask(clients[-1]).visit == 4
            for client in clients:
                client.close()
            wait_until(lambda: raw_http.descriptors(server) == before)
            assert raw_http.ask(visitor).visit == 5
    print(f"{each / 1024:.1f} kB for each of {number} idle connections")
    record_property("bytes_per_idle_connection", each)
    assert each < 64 * 1024
    assert cpu < 0.2, "a visit looks at each of them"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_request_forges_a_log_line(log_format: str, program: Start, valkey: Valkey) -> None:
    server = program(f"--redis-url={valkey.url}", *NO_HURRY, f"--log-format={log_format}")
    encoded = b"%0d%0a" + FORGED.replace(b" ", b"%20")
    forgeries = [
        get(first=b"GET /" + encoded + b" HTTP/1.1"),
        get(first=b"GET /?" + encoded + b" HTTP/1.1"),
        get(first=b"GET /\r" + FORGED + b" HTTP/1.1"),
        get(first=b"GET /\n" + FORGED + b" HTTP/1.1"),
        get(first=b"GET /\x85\xc2\x85\xe2\x80\xa8" + FORGED.replace(b" ", b"_") + b" HTTP/1.1"),
        get(first=b"G\r\n" + FORGED),
        host(b"a\r" + FORGED),
        host(b"a\r\n" + FORGED),
        host(b"a\n" + FORGED),
        host(b"a" + encoded),
        host(b"a\x85\xe2\x80\xa8" + FORGED),
        host(b'a","message":"forged"}\n{"a":"'),
    ]
    with raw_http.logged(server) as log:
        for forgery in forgeries:
            raw_http.talk(server, forgery + LAST)
        for row in ROWS:
            if not row.is_big:
                outcomes_of(server, row)
        server.signal()
        assert server.process.wait(PATIENCE) == 0
    for line in whole_lines(bytes(log), log_format):
        message = json.loads(line)["message"] if log_format == "json" else line[1:]
        assert not message.startswith(FORGED.decode())
