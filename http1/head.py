"""Reads the heads of requests and writes the heads of answers.

Tornado's own grammar reads the request line. llhttp reads the headers, through httptools.
"""

import functools
import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

from tornado.http1connection import is_transfer_encoding_chunked
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    RequestStartLine,
    parse_request_start_line,
)

from http1.beginning import feed, fields_parser
from http1.headers import ByName, PackedFields, as_lines, end_lines
from http1.input import TooLarge
from http1.tornado_internals import AnswerHeaders, CheckedHeaders, by_name, normalize_name

#: uri-host and port (RFC 9110, 7.2; RFC 3986, 3.2.2). Tornado accepts some other texts too.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|([\w.~!$&'()*+,;=-]|%[0-9a-f]{2})*)(:[0-9]*)?", re.I | re.A)

#: How many headers a request may have, and how many bytes a host and a header's name may have.
#: These bounds limit the memory of a request, and of the caches of names and hosts: Tornado keeps a
#: thousand names.
MAX_FIELDS = 128
MAX_HOST = 300
MAX_NAME = 128

#: Bytes that a method may have: far more than the longest known method has.
MAX_METHOD = 64

#: The bytes that each answer begins with (RFC 9112, 4).
VERSION = b"HTTP/1.1 "

#: Bytes of the longest head that is cached.
MAX_CACHED = 1024

_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)(.*)", re.I)


@dataclass(frozen=True)
class Head:
    """The head of a request.

    :arg line: the request line; its target is in origin form where possible (RFC 9112, 3.2.2).
    :arg fields: the values of each header.
    :arg has_body: whether a body follows, which may be empty (6.3).
    :arg is_last: whether the connection ends after the request (9.3 and 6.1).
    """

    line: RequestStartLine
    fields: ByName | PackedFields
    has_body: bool
    is_last: bool

    def headers(self) -> HTTPHeaders:
        """Return a copy of the headers, for one request."""
        return CheckedHeaders(self.fields.copy())


def parse_head(head: bytes) -> Head:
    """Read the head of a request (RFC 9112, 3 and 5).

    :arg head: the whole head, with the empty line at its end.
    :raises HTTPInputError: when the head is malformed.
    """
    if len(head) <= MAX_CACHED:
        return _parse_cached(head)
    parsed = _parse(head)
    return replace(parsed, fields=PackedFields(parsed.fields))


def _parse(head: bytes) -> Head:
    end = head.index(b"\r\n")
    line = _parse_line(head[:end])
    fields = _parse_headers(head[end:])
    headers = CheckedHeaders(fields)
    _check_host(headers)
    line = _in_origin_form(line, headers)
    is_chunked = is_transfer_encoding_chunked(headers)  # raises for any other encoding
    has_body = is_chunked or "Content-Length" in headers
    return Head(line, fields, has_body, _is_last(line.version, headers))


# Browsers, probes and balancers send the same head again and again.
_parse_cached = functools.lru_cache(maxsize=64)(_parse)


def _parse_line(line: bytes) -> RequestStartLine:
    parsed = parse_request_start_line(line.decode("latin1"))
    if len(parsed.method) > MAX_METHOD:
        raise HTTPInputError(f"a method of more than {MAX_METHOD} bytes")
    return parsed


def _parse_headers(lines: bytes) -> ByName:
    if lines.count(b"\r\n") > MAX_FIELDS + 2:  # the ends of the request line and of the head
        raise TooLarge(f"more than {MAX_FIELDS} headers")
    sent: list[tuple[bytes, bytes]] = []
    keep = SimpleNamespace(on_header=lambda *field: sent.append(field))
    feed(fields_parser(keep), lines)  # llhttp checks names and values, so Tornado need not
    fields: ByName = {}
    for name, value in sent:
        if len(name) > MAX_NAME:
            raise TooLarge(f"a header's name of more than {MAX_NAME} bytes")
        key = normalize_name(name.decode("latin1"))
        fields.setdefault(key, []).append(value.strip(b" \t").decode("latin1"))
    return fields


def _check_host(headers: HTTPHeaders) -> None:
    host = headers.get("Host", "")
    if len(host) > MAX_HOST or not _HOST.fullmatch(host):
        raise HTTPInputError("Invalid Host header")


def _in_origin_form(line: RequestStartLine, headers: HTTPHeaders) -> RequestStartLine:
    """Move the host from the target to ``Host``, in place of its value (RFC 9112, 3.2.2)."""
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

    :arg code: the status.
    :arg reason: the status's reason phrase.
    :raises ValueError: when a header or the reason has a line end.
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
