"""What the log is: one line a request, each of them whole, whatever a client sends."""

import datetime
import itertools
import json
import logging
import re
from unittest.mock import Mock

import pytest
from tornado.log import LogFormatter, access_log
from tornado.web import HTTPError

from tests.support import Patch
from tests.support.here import Serve
from tests.support.program import NOWHERE, Site, Start
from tests.support.raw_http import talk
from tests.support.valkey import Valkey
from watch import logs

FORMATS = ("text", "json")
TEXT_LINE = re.compile(r"\[[DIWEC] \d{6} \d\d:\d\d:\d\d \w+:\d+\] \S")

ODD = bytes([0x1B]) + b"[31m" + bytes([0x07, 0x08, 0x0B, 0x0C, 0x1C, 0x7F]) + bytes(range(128, 256))
# Line ends of Unicode, as UTF-8: NEL, LINE SEPARATOR, PARAGRAPH SEPARATOR; right-to-left override.
UNICODE = b"\xc2\x85\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xae"

WELL_FORMED = [
    (b"GET /%0a%0d[I%20261124%2009:00:00%20server:1]%20forged", b""),
    (b"GET /\xc3\xa9\xff\x85\xa0\xad" + UNICODE, b""),
    (b"GET /%s%d%(name)s{0}%n", b""),
    (b"GET /\"}{'\\n\\", b""),
    (b"GET /healthz", b'X-Request-ID: a\x85b\xff"},{"\r\n'),
    (b"GET /healthz", b"User-Agent: \xff\x85\x80\r\nReferer: " + UNICODE + b"\r\n"),
    (b"GET /healthz", b"X-Forwarded-For: 1\xff\r\nX-Real-Ip: \x85[I\r\n"),
    (b"BREW /", b""),
]

MALFORMED = [
    b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",  # a TLS hello
    b"GET /" + ODD + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nBad" + ODD + b": b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: " + ODD + UNICODE + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon \x85\x1b[2J\xe2\x80\xa8\r\n\r\n",
    b"GET / HTTP/9.\x85\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \x85\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x85\xff, chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\x85\x1b\r\nx\r\n",
    b"G\xff\x85T\x1b / HTTP/1.1\r\nHost: a\r\n\r\n",
]

# Well formed as HTTP, with a body whose form Tornado looks into.
BODIES = [
    (b"application/x-www-form-urlencoded", b"%ff=\xff\x85\n&&\x1b"),
    (b"multipart/form-data; boundary=\x85", b"--\x85\r\nX\xff: \x1b\n\r\n\r\n--\x85--"),
    (b"multipart/form-data", b"\xe2\x80\xa8"),
]


def whole_lines(log: bytes, log_format: str) -> list[str]:
    """The log's lines, each checked to be one."""
    text = log.decode()
    assert text.endswith("\n")
    odd = {c for c in text if not c.isprintable()} - {"\n"}
    assert odd == set()
    lines = text.removesuffix("\n").split("\n")
    for line in lines:
        if log_format == "json":
            fields = json.loads(line)
            assert {"time", "level", "logger", "message"} <= fields.keys(), line
            assert all(str(fields[name]).isprintable() for name in fields if name != "path")
        else:
            assert TEXT_LINE.match(line), line
    return lines


def requests_in(lines: list[str]) -> list[str]:
    """The lines that are of a request that was answered."""
    answered = r"\] \d{3} \S+ .* \(127\.0\.0\.1\) [\d.]+ms$|^\{.*\"status\": "
    return [line for line in lines if re.search(answered, line)]


def requests_logged(server: Site, log_format: str) -> list[str]:
    """Stop a server, and return the lines of its requests; each line of its log is checked."""
    server.stop()
    return requests_in(whole_lines(server.log, log_format))


@pytest.mark.parametrize("log_format", FORMATS)
def test_no_byte_breaks_a_line(log_format: str, serve: Serve, valkey: Valkey) -> None:
    server = serve(f"--log-format={log_format}", "--log-level=debug")
    host = b"Host: a\r\nConnection: close\r\n"
    for start, header in WELL_FORMED:
        request = start + b" HTTP/1.1\r\n" + host + header + b"\r\n"
        assert len(talk(server, request)) == 1, request
    for form, body in BODIES:
        head = b"POST / HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        assert len(talk(server, head % (host, form, len(body)) + body)) == 1, form
    for request in MALFORMED:
        assert 200 not in [answer.status for answer in talk(server, request)], request
    assert len(requests_logged(server, log_format)) == len(WELL_FORMED) + len(BODIES)
    # Besides those: listening, perhaps counter off, counter on, stopping, and one for each at most.
    most = 4 + len(WELL_FORMED) + 2 * len(BODIES) + len(MALFORMED)
    assert server.log.count(b"\n") <= most
    assert valkey.counter() == 0


ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

#: Headers that are well formed (https://www.w3.org/TR/trace-context/), and others.
TRACEPARENTS = [
    *(f"00-{ID}-{PARENT}-00", f"cc-{ID}-{PARENT}-01-what-comes-next", f"cc-{ID}-{PARENT}-01"),
]
NO_TRACEPARENTS = [
    *(f"00-{ID}-{PARENT}-01-more", f"cc-{ID}-{PARENT}-01.", f"ff-{ID}-{PARENT}-01"),
    *(f"00-{'0' * 32}-{PARENT}-01", f"00-{ID}-{'0' * 16}-01", f"00-{ID.upper()}-{PARENT}-01"),
    *(f"00-{ID}-{PARENT}", f"00-{ID}-{PARENT}-01, b", '"},{"\\x85'),
    f"00-{ID}-{PARENT}-01\r\ntraceparent: 00-{ID}-{PARENT}-01",
]


def test_answered_requests_have_one_line_each(serve: Serve) -> None:
    def lines(log_format: str, traceparents: list[str]) -> list[str]:
        server = serve(f"--log-format={log_format}", "--log-level=debug")
        for path in ("/", "/healthz", "/readyz", "/metrics", "/nothing"):
            server.get(path, X_Request_ID="id-of-mine", traceparent=f"00-{ID}-{PARENT}-01")
        server.get("/?query=1", method="POST")
        for one in traceparents:
            request = f"GET /traced HTTP/1.1\r\nHost: a\r\ntraceparent: {one}\r\n"
            talk(server, f"{request}Connection: close\r\n\r\n".encode())
        return requests_logged(server, log_format)

    answered = lines("text", [])
    assert [re.sub(r" \d{6}.*\] | \([^()]*\) [\d.]+ms$", " ", line) for line in answered] == [
        *("[I 200 GET / ", "[D 200 GET /healthz ", "[D 200 GET /readyz ", "[D 200 GET /metrics "),
        *("[W 404 GET /nothing ", "[W 405 POST /?query=1 "),
    ]
    fields = [json.loads(line) for line in lines("json", TRACEPARENTS + NO_TRACEPARENTS)]
    names = ("level", "method", "path", "status", "request_id", "traceparent")
    asked, traced = fields[:6], fields[6:]
    made = asked[-1]["request_id"]
    sent = ("id-of-mine", f"00-{ID}-{PARENT}-01")
    assert [tuple(map(one.get, names)) for one in asked] == [
        ("INFO", "GET", "/", 200, *sent),
        *(("DEBUG", "GET", path, 200, *sent) for path in ("/healthz", "/readyz", "/metrics")),
        ("WARNING", "GET", "/nothing", 404, *sent),
        ("WARNING", "POST", "/", 405, made, None),
    ]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert [one.get("traceparent") for one in traced] == [
        *TRACEPARENTS,
        *([None] * len(NO_TRACEPARENTS)),
    ]
    times = [datetime.datetime.fromisoformat(one["time"]) for one in fields]
    assert times == sorted(times)
    assert {one.utcoffset() for one in times} == {datetime.timedelta(0)}
    assert {(one["remote"], one["logger"]) for one in fields} == {("127.0.0.1", "tornado.access")}
    assert all(one["duration_ms"] > 0 and one["message"] for one in fields)


@pytest.mark.parametrize("log_format", ["text", pytest.param("json", marks=pytest.mark.slow)])
def test_log_is_whole_where_the_system_writes_ascii_only(log_format: str, program: Start) -> None:
    url = "--redis-url=unix:/nowhere/Zähler.sock"
    server = program(url, f"--log-format={log_format}", PYTHONIOENCODING="ascii")
    talk(server, b"GET /\xff\xc3\xa9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert len(requests_logged(server, log_format)) == 1
    assert server.log.isascii()


def test_text_is_what_tornado_would_write() -> None:
    ours, tornados = logs._TextFormatter(), LogFormatter()
    texts = set()
    for created, level, (path, line), error in itertools.product(
        (1_700_000_000.0, 1_700_000_000.9, 1_700_000_001.0, 1_700_086_400.0),
        (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR),
        (("/a/web.py", 7), ("/a/web.py", 8), ("/a/visits.py", 7)),
        (None, (ValueError, ValueError("bad"), None)),
    ):
        record = logging.LogRecord("a", level, path, line, "%d %s", (200, "GET"), error)
        record.created = created
        texts.add(text := ours.format(record))
        assert text == tornados.format(record)
    assert len(texts) == 3 * 4 * 3 * 2  # two of the times are in the same second


def test_a_line_is_what_its_record_would_become(served: Serve, monkeypatch: Patch) -> None:
    monkeypatch.setattr("handlers.live._page", Mock(side_effect=HTTPError(500)))
    server = served(NOWHERE)

    def ask() -> None:
        for path in (b"/", b"/\x85\xe2\x80\xa8[I", b"/%s%d%(name)s", b"/live?last=x", b"/live"):
            talk(server, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    ask()
    logging.root.addHandler(logging.NullHandler())  # so that there are records
    ask()
    lines = requests_logged(server, "text")
    said = [re.sub(r" \d{6} \d\d:\d\d:\d\d | [\d.]+ms$", " ", line) for line in lines]
    assert said[:5] == said[5:]
    assert [line[:3] + line.split()[2] for line in said[:5]] == [
        *("[I 200", "[W 404", "[W 404", "[W 400", "[E 500"),
    ]


@pytest.mark.parametrize("whose", ["root", "access", "parent", "access filter", "handler filter"])
def test_others_get_the_records(whose: str, served: Serve, monkeypatch: Patch) -> None:
    server = served(NOWHERE)
    records: list[logging.LogRecord] = []
    own, parent, handler = logging.root.handlers[0], logging.Logger("tornado"), logging.Handler()
    for name in ("filters", "handlers"):
        monkeypatch.setattr(access_log, name, [])
    parent.parent = logging.root
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    if "filter" in whose:
        filtered = own if whose == "handler filter" else access_log
        filtered.addFilter(lambda record: records.append(record) or True)
    else:
        {"root": logging.root, "access": access_log, "parent": parent}[whose].addHandler(handler)
    if whose == "parent":
        monkeypatch.setattr(access_log, "parent", parent)
    server.get("/a")
    assert len(requests_logged(server, "text")) == 1
    assert [vars(one)["path"] for one in records if one.name == access_log.name] == ["/a"]


def test_a_handler_that_is_for_graver_lines_writes_no_request(served: Serve) -> None:
    server = served(NOWHERE)
    logging.root.handlers[0].setLevel(logging.ERROR)
    server.get()
    assert requests_logged(server, "text") == []


@pytest.mark.parametrize("log_format", FORMATS)
def test_what_a_client_sent_is_cut(log_format: str, served: Serve) -> None:
    server = served(NOWHERE, f"--log-format={log_format}")
    for path in (b"/" + b"x" * 16_000, b"/" + b"\x85" * 16_000, b"/live?last=" + b"\x85" * 16_000):
        talk(server, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        talk(server, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n")
    server.stop()
    lines = [line for line in server.log.splitlines() if re.search(rb"40[04] GET|alformed", line)]
    assert len(lines) >= 7
    cut = [line for line in lines if b"\xe2\x80\xa6" in line or b"\\u2026" in line]
    assert len(cut) == len(lines) - 3, "all but those of what is malformed"
    # An escape has six characters; the rest of a line is far shorter.
    assert max(map(len, lines)) < 6 * logs.LONGEST + 1000
