"""The body of a request: of a length that the head says, or in chunks."""

import re
from typing import NamedTuple, Protocol

from tornado.httputil import HTTPInputError

#: Bytes that a chunk may have beside its data, on average (RFC 9112, 7.1).
CHUNK_OVERHEAD = 64

#: Bytes of a line between chunks. When more of an incomplete line arrives, the line is read again.
MAX_LINE = 1024


class Body(Protocol):
    """Reads a body from the bytes that arrive."""

    is_whole: bool
    """Whether the body's end was found."""

    def read(self, data: bytes, at: int, most: int) -> tuple[bytes, int]:
        """Read the next part of the body.

        :arg data: the bytes that have arrived.
        :arg at: where in the data the body goes on.
        :arg most: bytes to return at most.
        :return: a part of the body, perhaps an empty one, and the place in the data where the next
            reading begins. Reading stops before the end of the data after ``most`` bytes, at the
            end of the body, or at an incomplete line.
        :raises HTTPInputError: when the body is malformed or too large.
        """


class FixedBody:
    """A body of a length that is known (RFC 9112, 6.2).

    :arg length: bytes.
    """

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_whole = length == 0

    def read(self, data: bytes, at: int, most: int) -> tuple[bytes, int]:
        """See `Body.read`."""
        part = data[at : at + min(self._left, most)]
        self._left -= len(part)
        self.is_whole = self._left == 0
        return part, at + len(part)


class _Line(NamedTuple):
    """A kind of line in a chunked body: patterns for the line without its end, and for a beginning.

    :arg name: for error messages.
    :arg whole: matches the whole line.
    :arg beginning: matches bytes that may become such a line.
    """

    name: str
    whole: re.Pattern[bytes]
    beginning: re.Pattern[bytes]


_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_QUOTED = rb'"([\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'

#: A chunk's size, of less than 64 bits, and its extensions, which the server ignores (RFC 9112,
#: 7.1.1). The server refuses white space between them; the RFC calls it "bad".
_SIZE = _Line(
    "chunk size",
    re.compile(rb"([0-9A-Fa-f]{1,15})(;%b(=(%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED)),
    re.compile(rb"[0-9A-Fa-f]{1,15}(;%b)?\r?" % _TEXT),
)
_DATA_END = _Line("chunk", re.compile(b""), re.compile(rb"\r?"))
#: A trailer, which the server ignores (RFC 9112, 7.1.2), or the empty line at the end.
_TRAILER = _Line(
    "trailer",
    re.compile(rb"(%b:%b)?" % (_TOKEN, _TEXT)),
    re.compile(rb"(%b(:%b)?)?\r?" % (_TOKEN, _TEXT)),
)


#: Names that no trailer may have (RFC 9110, 6.5.1): another parser might use such a trailer.
_FRAMING = (b"content-length", b"transfer-encoding", b"host")


class ChunkedBody:
    """A body in chunks (RFC 9112, 7.1).

    :arg max_size: bytes of data in all chunks together.
    :arg max_overhead: bytes of sizes, extensions and trailers, beyond `CHUNK_OVERHEAD` a chunk.
    """

    def __init__(self, max_size: int, max_overhead: int) -> None:
        self._size_left = max_size
        self._max_overhead = max_overhead
        self._overhead = 0
        self._chunk_left = 0
        self._expected = _SIZE
        self.is_whole = False

    def read(self, data: bytes, at: int, most: int) -> tuple[bytes, int]:
        """See `Body.read`."""
        parts = []
        while most and at < len(data) and not self.is_whole:
            if self._chunk_left:
                part = data[at : at + min(self._chunk_left, most)]
                parts.append(part)
                self._chunk_left -= len(part)
                most -= len(part)
                at += len(part)
                continue
            end = data.find(b"\r\n", at)
            line = data[at : end if end >= 0 else None]
            self._allow(len(line))
            if end < 0:
                self._match(self._expected.beginning, line)
                break
            self._read_line(line)
            at = end + 2
        return b"".join(parts), at

    def _read_line(self, line: bytes) -> None:
        match = self._match(self._expected.whole, line)
        if self._expected is _SIZE:
            self._chunk_left = int(match[1], 16)
            self._size_left -= self._chunk_left
            if self._size_left < 0:
                raise HTTPInputError("chunked body too large")
            self._overhead = max(0, self._overhead + len(line) - CHUNK_OVERHEAD)
            self._expected = _DATA_END if self._chunk_left else _TRAILER
        elif self._expected is _DATA_END:
            self._expected = _SIZE
        else:
            if line.partition(b":")[0].lower() in _FRAMING:
                raise HTTPInputError("no trailer may have this name")
            self._overhead += len(line) + 2
            self.is_whole = not line

    def _match(self, pattern: re.Pattern[bytes], line: bytes) -> re.Match[bytes]:
        if match := pattern.fullmatch(line):
            return match
        raise HTTPInputError(f"malformed {self._expected.name}")

    def _allow(self, more: int) -> None:
        if more > MAX_LINE or self._overhead + more > self._max_overhead:
            raise HTTPInputError("chunk sizes, extensions or trailers too large")
