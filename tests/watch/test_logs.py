"""What the log is: one line a request, each of them whole, whatever a client sends."""

import datetime
import json
import logging
import re
from unittest.mock import Mock

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.log import LogFormatter, access_log
from tornado.web import Application, RequestHandler

from tests.support.here import Serve
from tests.support.program import NOWHERE, Site, Start
from tests.support.raw_http import open_to, read_to_end
from tests.support.valkey import Valkey
from watch import logs

FORMATS = ("text", "json")
TEXT_LINE = re.compile(r"\[[DIWEC] \d{6} \d\d:\d\d:\d\d \w+:\d+\] \S")

ODD = bytes([0x1B]) + b"[31m" + bytes([0x07, 0x08, 0x0B, 0x0C, 0x1C, 0x7F]) + bytes(range(128, 256))
# Line ends of Unicode, as UTF-8: NEL, LINE SEPARATOR, PARAGRAPH SEPARATOR; right-to-left override.
UNICODE = b"\xc2\x85\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xae"

WELL_FORMED = [
    (b"GET /%0a%0d[I%20261124%2009:00:00%20server:1]%20forged", b""),
    (b"GET /%1b[31m%00%7f%85%e2%80%a8", b""),
    (b"GET /?a=%d8&%ff=%0a", b""),
    (b"GET /\xc3\xa9\xff\x85\xa0\xad" + UNICODE, b""),
    (b"GET /%s%d%(name)s{0}%n", b""),
    (b"GET /\"}{'\\n\\", b""),
    (b"GET /healthz", b"X-Request-ID: a\x85b\xff\r\n"),
    (b"GET /healthz", b'X-Request-ID: "},{"\r\n'),
    (b"GET /healthz", b"User-Agent: \xff\x85\x80\r\nReferer: " + UNICODE + b"\r\n"),
    (b"GET /healthz", b"X-Forwarded-For: 1\xff\r\nX-Real-Ip: \x85[I\r\n"),
    (b"BREW /", b""),
    (b"HEAD /\x85", b""),
]

MALFORMED = [
    b"GET\r\n\r\n",
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
    b"GET /\nX: y\r\x1b HTTP/1.1\nHost: a\r\n\r\n",
]

# Well formed as HTTP, with a body whose form Tornado looks into.
BODIES = [
    (b"application/x-www-form-urlencoded", b"%ff=\xff\x85\n&&\x1b"),
    (b"multipart/form-data; boundary=\x85", b"--\x85\r\nX\xff: \x1b\n\r\n\r\n--\x85--"),
    (
        b"multipart/form-data; boundary=a",
        b"--a\r\nContent-Disposition: \xff\x85\n\r\n\r\n--a--\r\n",
    ),
    (b"multipart/form-data", b"\xe2\x80\xa8"),
]


def talk(server: Site, request: bytes) -> bytes:
    with open_to(server) as client:
        client.sendall(request)
        return read_to_end(client)


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


ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("log_format", FORMATS)
def test_no_byte_of_a_request_breaks_a_line_and_each_has_one(
    log_format: str, served: Serve
) -> None:
    server = served(NOWHERE, f"--log-format={log_format}", "--log-level=debug")
    host = b"Host: a\r\nConnection: close\r\n"
    for start, header in WELL_FORMED:
        request = start + b" HTTP/1.1\r\n" + host + header + b"\r\n"
        assert talk(server, request).startswith(b"HTTP/1.1 "), request
    for form, body in BODIES:
        head = b"POST / HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        assert talk(server, head % (host, form, len(body)) + body).startswith(b"HTTP/1.1 ")
    answered = requests_logged(server, log_format)
    assert len(answered) == len(WELL_FORMED) + len(BODIES)


@pytest.mark.parametrize("log_format", FORMATS)
def test_no_byte_of_what_is_no_request_breaks_a_line(
    log_format: str, serve: Serve, valkey: Valkey
) -> None:
    server = serve(f"--log-format={log_format}", "--log-level=debug")
    for request in MALFORMED:
        assert b"200 OK" not in talk(server, request), request
        assert server.get("/healthz")[0] == 200
    assert len(requests_logged(server, log_format)) >= len(MALFORMED)  # /healthz, each time
    # Besides those: listening, perhaps counter off, counter on, stopping, and one for each at most.
    assert server.log.count(b"\n") <= 4 + 2 * len(MALFORMED)
    assert valkey.counter() == 0


def test_answered_requests_have_one_line_each(serve: Serve) -> None:
    def lines(log_format: str) -> list[str]:
        server = serve(f"--log-format={log_format}", "--log-level=debug")
        traced = f"00-{ID}-{PARENT}-01"
        for path in ("/", "/healthz", "/readyz", "/metrics", "/nothing"):
            server.get(path, X_Request_ID="id-of-mine", traceparent=traced)
        server.get("/?query=1", method="POST", traceparent="00-\x85")
        return requests_logged(server, log_format)

    answered = lines("text")
    assert [re.sub(r" \d{6}.*\] | \([^()]*\) [\d.]+ms$", " ", line) for line in answered] == [
        *("[I 200 GET / ", "[D 200 GET /healthz ", "[D 200 GET /readyz ", "[D 200 GET /metrics "),
        *("[W 404 GET /nothing ", "[W 405 POST /?query=1 "),
    ]
    fields = [json.loads(line) for line in lines("json")]
    assert [(one["level"], one["method"], one["path"], one["status"]) for one in fields] == [
        ("INFO", "GET", "/", 200),
        *(("DEBUG", "GET", path, 200) for path in ("/healthz", "/readyz", "/metrics")),
        ("WARNING", "GET", "/nothing", 404),
        ("WARNING", "POST", "/", 405),
    ]
    *others, last = fields
    for one in others:
        assert (one["request_id"], one["traceparent"]) == ("id-of-mine", f"00-{ID}-{PARENT}-01")
    assert re.fullmatch("[0-9a-f]{32}", last["request_id"])
    assert "traceparent" not in last
    times = [datetime.datetime.fromisoformat(one["time"]) for one in fields]
    assert times == sorted(times)
    for one, time in zip(fields, times, strict=True):
        assert time.utcoffset() == datetime.timedelta(0)
        assert (one["remote"], one["logger"]) == ("127.0.0.1", "tornado.access")
        assert one["duration_ms"] > 0
        assert one["message"]


@pytest.mark.parametrize(
    ("traceparents", "is_logged"),
    [
        ([f"00-{ID}-{PARENT}-01"], True),
        ([f"00-{ID}-{PARENT}-00"], True),
        ([f"cc-{ID}-{PARENT}-01-what-comes-next"], True),
        ([f"cc-{ID}-{PARENT}-01"], True),
        ([], False),
        ([f"00-{ID}-{PARENT}-01"] * 2, False),
        ([f"00-{ID}-{PARENT}-01-more"], False),
        ([f"cc-{ID}-{PARENT}-01."], False),
        ([f"ff-{ID}-{PARENT}-01"], False),
        ([f"00-{'0' * 32}-{PARENT}-01"], False),
        ([f"00-{ID}-{'0' * 16}-01"], False),
        ([f"00-{ID.upper()}-{PARENT}-01"], False),
        ([f"00-{ID}-{PARENT}"], False),
        ([f"00-{ID}-{PARENT}-01, b"], False),
        (['"},{"\\x85'], False),
    ],
)
def test_traceparent_is_logged_when_it_is_well_formed(
    traceparents: list[str], is_logged: bool
) -> None:
    headers = HTTPHeaders()
    for one in traceparents:
        headers.add("traceparent", one)
    assert logs._traceparent(headers) == (traceparents[0] if is_logged else None)


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
    for created in (1_700_000_000.0, 1_700_000_000.9, 1_700_000_001.0, 1_700_086_400.0):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            for path, line in (("/a/web.py", 7), ("/a/web.py", 8), ("/a/visits.py", 7)):
                for error in (None, (ValueError, ValueError("bad"), None)):
                    record = logging.LogRecord("a", level, path, line, "%d %s", (200, "GET"), error)
                    record.created = created
                    text = ours.format(record)
                    assert text == tornados.format(record)
                    texts.add(text)
    assert len(texts) == 3 * 4 * 3 * 2  # two of the times are in the same second


class Taken(bytearray):
    """What stands in for standard error."""

    write = bytearray.extend

    def finish(self) -> None:
        """Be asked for it as a process that is forked meanwhile ends."""


def take(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Taken:
    """Have text logs written there, and nowhere else: pytest takes records as the test begins."""
    caplog.set_level(logging.DEBUG, access_log.name)
    taken = Taken()
    handler = logs._TextHandler(taken)  # type: ignore[arg-type]
    handler.addFilter(logs._escape)
    handler.setFormatter(logs._TextFormatter())
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(logs.time, "time", lambda: 1_700_000_000.5)  # type: ignore[attr-defined]
    return taken


def answered(uri: str = "/", status: int = 200) -> RequestHandler:
    line = RequestStartLine("GET", uri, "HTTP/1.1")
    request = HTTPServerRequest(
        start_line=line, headers=HTTPHeaders({"Host": "a"}), connection=Mock()
    )
    handler = RequestHandler(Application(), request)
    handler.set_status(status)
    return handler


@pytest.mark.parametrize(("status", "level"), [(399, b"I"), (400, b"W"), (499, b"W"), (500, b"E")])
@pytest.mark.parametrize("uri", ["/", "/\x85\u2028[I", "/%s%d%(name)s"])
def test_the_line_of_a_request_is_what_its_record_would_become(
    uri: str,
    status: int,
    level: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken, handler = take(monkeypatch, caplog), answered(uri, status)
    logs.log_request(handler)
    logging.root.addHandler(logging.NullHandler())
    logs.log_request(handler)
    line, same, rest = taken.split(b"\n")
    assert line == same
    assert line.startswith(b"[" + level)
    assert b"%d GET" % status in line
    assert not rest


@pytest.mark.parametrize("whose", ["root", "access", "parent", "access filter", "handler filter"])
def test_whoever_else_wants_the_records_of_requests_gets_them(
    whose: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = take(monkeypatch, caplog)
    records: list[logging.LogRecord] = []
    own, parent, handler = logging.root.handlers[0], logging.Logger("tornado"), logging.Handler()
    for logger in (access_log, own):
        monkeypatch.setattr(logger, "filters", [*logger.filters])
    monkeypatch.setattr(access_log, "handlers", [])
    parent.parent = logging.root
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    if "filter" in whose:
        filtered = own if whose == "handler filter" else access_log
        filtered.addFilter(lambda record: records.append(record) or True)
    else:
        {"root": logging.root, "access": access_log, "parent": parent}[whose].addHandler(handler)
    if whose == "parent":
        monkeypatch.setattr(access_log, "parent", parent)
    logs.log_request(answered("/a"))
    assert [vars(record)["path"] for record in records] == ["/a"]
    assert taken.count(b"\n") == 1


def test_a_handler_that_is_for_graver_lines_writes_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = take(monkeypatch, caplog)
    logging.root.handlers[0].setLevel(logging.ERROR)
    logs.log_request(answered())
    assert not taken


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_line_has_a_thousand_characters_of_what_a_client_sent(
    log_format: str, served: Serve
) -> None:
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
