"""Checks the beginning of a request's head, each byte once."""

import re

import httptools
from tornado.httputil import HTTPInputError, parse_request_start_line

#: The parts of a request line (RFC 9112, 3). Tornado's grammar later reads the whole line.
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]*")
_VERSION = re.compile(rb"(H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.|HTTP/1\.[0-9]\r?)?")


class Beginning:
    """Refuses bytes as soon as they cannot become a head any more, however small the pieces are.

    It checks each byte once. If it checked the whole head again for each new byte, each byte near
    the end of a long head would take 3 ms, and a client could keep the processor busy.
    """

    def __init__(self) -> None:
        self._at = 0  # how many bytes are checked
        self._part_at = 0  # where the present part of the request line begins
        self._parts = [_METHOD, _TARGET]  # the present part and the next ones, without the version
        self._fields: httptools.HttpRequestParser | None = None

    def check(self, head: bytes) -> None:
        """Check the bytes of a head that were not checked before.

        :arg head: all bytes of the head that have arrived.
        :raises HTTPInputError: when they cannot become a head any more.
        """
        if self._fields is None and head != b"\r":
            end = head.find(b"\r\n", self._at)
            if end < 0:
                self._check_line(head)
                self._at = max(self._at, len(head) - 1)  # the last byte may begin a line end
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
    """Return llhttp's parser, ready to read header lines.

    The parser gets a request line that is always the same, and never the client's: llhttp knows
    few methods, and has special rules for some.

    :arg protocol: httptools calls its ``on_header`` for each header; None to check only.
    """
    parser = httptools.HttpRequestParser(protocol)
    parser.feed_data(b"POST / HTTP/1.1")
    return parser


def feed(parser: httptools.HttpRequestParser, lines: bytes) -> None:
    """Let a parser read header lines.

    :arg lines: the next bytes. The first ones begin with the end of the line before them.
    :raises HTTPInputError: when they are malformed.
    """
    try:
        parser.feed_data(lines)
    except httptools.HttpParserUpgrade:
        pass  # the client asks for another protocol; the server may ignore that (RFC 9110, 7.8)
    except httptools.HttpParserError as error:
        raise HTTPInputError(str(error)) from None
