"""The beginning of a request's head, each byte of which is checked once."""

import re

import httptools
from tornado.httputil import HTTPInputError, parse_request_start_line

#: The parts of a request line (RFC 9112, 3). Tornado's grammar reads the whole line again.
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]*")
_VERSION = re.compile(rb"(H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.|HTTP/1\.[0-9]\r?)?")


class Beginning:
    """Refuses at once what cannot become a head any more, however small the pieces are.

    To check all of it again with each piece would let a client that sends byte by byte take the
    processor: 3 ms a byte near the end of the longest head.
    """

    def __init__(self) -> None:
        self._at = 0  # bytes that are checked
        self._part_at = 0  # where the present part of the request line begins
        self._parts = [_METHOD, _TARGET]  # the present one, and those to come, but for the last
        self._fields: httptools.HttpRequestParser | None = None

    def check(self, head: bytes) -> None:
        """Check what has arrived of a head, as far as it was not checked before.

        :raises HTTPInputError: when the rest need not be waited for.
        """
        if self._fields is None and head != b"\r":
            end = head.find(b"\r\n", self._at)
            if end < 0:
                self._check_line(head)
                self._at = max(self._at, len(head) - 1)  # the last may be the first of a line end
                return
            parse_request_start_line(head[:end].decode("latin1"))
            self._at = end
            self._fields = fields_parser(None)
        if self._fields is not None:
            feed(self._fields, head[self._at :])
            self._at = len(head)

    def _check_line(self, line: bytes) -> None:
        at = max(self._at, self._part_at)
        while self._parts:
            match = self._parts[0].match(line, at)
            assert match is not None
            at = match.end()
            if at == len(line):
                return
            if line[at : at + 1] != b" " or at == self._part_at:
                raise HTTPInputError("Malformed HTTP request line")
            del self._parts[0]
            at += 1
            self._part_at = at
        if not _VERSION.fullmatch(line, self._part_at):
            raise HTTPInputError("Malformed HTTP request line")


def fields_parser(protocol: object) -> httptools.HttpRequestParser:
    """Return llhttp's parser, for header lines that come after a request line of its own.

    llhttp knows few methods, and each in its own way; the line is none of its business.

    :arg protocol: is told of each header, as httptools does.
    """
    parser = httptools.HttpRequestParser(protocol)
    parser.feed_data(b"POST / HTTP/1.1")
    return parser


def feed(parser: httptools.HttpRequestParser, lines: bytes) -> None:
    """Let a parser read some of the header lines, from the end of the line before them on.

    :raises HTTPInputError: when they are malformed.
    """
    try:
        parser.feed_data(lines)
    except httptools.HttpParserUpgrade:
        pass  # asked for, and not wanted here (RFC 9110, 7.8)
    except httptools.HttpParserError as error:
        raise HTTPInputError(str(error)) from None
