"""The head of a message: a request's is read, an answer's is written.

The request line is read with Tornado's own grammar, the headers by llhttp, through httptools.
"""

import functools
import re
from dataclasses import dataclass

import httptools
from tornado.http1connection import is_transfer_encoding_chunked
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    RequestStartLine,
    parse_request_start_line,
)

from http1.headers import ByName, as_lines, end_lines
from http1.tornado_internals import AnswerHeaders, CheckedHeaders, by_name, normalize_name

#: What a request line may begin with (RFC 9112, 3): what cannot become one is not waited for.
_LINE_BEGINNING = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+( ([\x21-\x7e\x80-\xff]+"
    rb"( (H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.|HTTP/1\.[0-9]\r?)?)?)?)?"
)

#: uri-host and port (RFC 9110, 7.2; RFC 3986, 3.2.2). Tornado takes some that are none.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|([\w.~!$&'()*+,;=-]|%[0-9a-f]{2})*)(:[0-9]*)?", re.I | re.A)

#: What each answer begins with (RFC 9112, 4).
VERSION = b"HTTP/1.1 "

#: Bytes of the longest head that is cached.
MAX_CACHED = 1024

_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)(.*)", re.I)


@dataclass(frozen=True)
class Head:
    """The head of a request.

    :arg line: the request line, its target in origin form where it can be (RFC 9112, 3.2.2).
    :arg fields: the values of each header.
    :arg has_body: whether a body follows, if perhaps an empty one (6.3).
    :arg is_last: whether nothing may be read after the request (9.3 and 6.1).
    """

    line: RequestStartLine
    fields: ByName
    has_body: bool
    is_last: bool

    def headers(self) -> HTTPHeaders:
        """Return the headers, for one request to keep."""
        return CheckedHeaders(self.fields.copy())


def parse_head(head: bytes) -> Head:
    """Read the head of a request (RFC 9112, 3 and 5).

    :arg head: to its end, the empty line.
    :raises HTTPInputError: when it is malformed.
    """
    return _parse_cached(head) if len(head) <= MAX_CACHED else _parse(head)


def _parse(head: bytes) -> Head:
    end = head.index(b"\r\n")
    line = _parse_line(head[:end])
    fields = _parse_headers(head[end:])
    headers = CheckedHeaders(fields)
    _check_host(headers)
    line = _in_origin_form(line, headers)
    is_chunked = is_transfer_encoding_chunked(headers)  # refuses every other encoding
    has_body = is_chunked or "Content-Length" in headers
    return Head(line, fields, has_body, _is_last(line.version, headers))


# Browsers, probes and balancers send the same head again and again: 16 % of a page.
_parse_cached = functools.lru_cache(maxsize=64)(_parse)


def check_beginning(head: bytes) -> None:
    """Refuse what cannot become the head of a request any more.

    :arg head: what has arrived of it.
    :raises HTTPInputError: when the rest need not be waited for.
    """
    end = head.find(b"\r\n")
    if end >= 0:
        _parse_line(head[:end])
        _parse_headers(head[end:])
    elif head != b"\r" and not _LINE_BEGINNING.fullmatch(head):
        raise HTTPInputError("Malformed HTTP request line")


def _parse_line(line: bytes) -> RequestStartLine:
    return parse_request_start_line(line.decode("latin1"))


class _Fields:
    """What llhttp finds: the values by name. It has checked both, so Tornado need not."""

    def __init__(self) -> None:
        self.by_name: ByName = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        key = normalize_name(name.decode("latin1"))
        self.by_name.setdefault(key, []).append(value.strip(b" \t").decode("latin1"))


def _parse_headers(lines: bytes) -> ByName:
    fields = _Fields()
    parser = httptools.HttpRequestParser(fields)
    try:
        # llhttp knows few methods, and each in its own way; the line is none of its business.
        parser.feed_data(b"POST / HTTP/1.1" + lines)
    except httptools.HttpParserUpgrade:
        pass  # asked for, and not wanted here (RFC 9110, 7.8)
    except httptools.HttpParserError as error:
        raise HTTPInputError(str(error)) from None
    return fields.by_name


def _check_host(headers: HTTPHeaders) -> None:
    if not _HOST.fullmatch(headers.get("Host", "")):
        raise HTTPInputError("Invalid Host header")


def _in_origin_form(line: RequestStartLine, headers: HTTPHeaders) -> RequestStartLine:
    """Take the host out of the target, where it beats the header (RFC 9112, 3.2.2)."""
    if line.path.startswith("/") or not (target := _ABSOLUTE_FORM.fullmatch(line.path)):
        return line
    host, path = target.groups()
    if not host or host.startswith(":"):
        raise HTTPInputError("No host in the target")  # RFC 9110, 4.2.1
    hosts = len(headers.get_list("Host"))
    if hosts > 1 or (hosts == 0 and line.version != "HTTP/1.0"):
        return line  # Tornado refuses it
    headers["Host"] = host
    _check_host(headers)
    return line._replace(path=path if path.startswith("/") else f"/{path}")


def _is_last(version: str, headers: HTTPHeaders) -> bool:
    options = connection_options(headers)
    if version == "HTTP/1.0":
        return "keep-alive" not in options or "close" in options or "Transfer-Encoding" in headers
    return "close" in options


def format_head(code: int, reason: str, headers: HTTPHeaders) -> bytes:
    """Write the head of an answer (RFC 9112, 4 and 5).

    :raises ValueError: when a line end in it would end it, or begin another header.
    """
    status = f"HTTP/1.1 {code} {reason}"
    if isinstance(headers, AnswerHeaders):
        common, own = headers.common.lines, headers.own
    else:
        common, own = "", by_name(headers)
    return f"{end_lines([status, *as_lines(own)])}{common}\r\n".encode("latin1")


def connection_options(headers: HTTPHeaders) -> list[str]:
    """Return the options of ``Connection``, in lower case (RFC 9110, 7.6.1)."""
    options = headers.get("Connection")
    if options is None:
        return []
    return [option.strip(" \t") for option in options.lower().split(",")]
