"""What clients send: pipelines of requests, well formed, almost, or not at all."""

from typing import NamedTuple

from hypothesis import strategies as st

from tests.fuzz.application import PATHS
from tests.fuzz.client import End, Manner

Draw = st.DrawFn


class Input(NamedTuple):
    data: bytes
    manners: list[tuple[list[int], Manner]]  # where to cut it, and how to send that
    is_valid: bool


METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"M-SEARCH", b"X!#$%&'*+-.^_`|~9"]
ODD_METHODS = [b"", b"G T", b"G\0T", b"GET:", b"get", b"PRI", b"\xff", b"CONNECT", b"(GET)"]
TARGETS = [path.encode() for path in PATHS]
ODD_TARGETS = [
    *(b"http://a/", b"HTTPS://b:80/later?x", b"http://a", b"http://a?x", b"http://u@a/"),
    *(b"http://:80/", b"http:///", b"ftp://a/", b"//a/", b"*", b"a:80", b"/#x", b"/?a=b&c"),
    *(b"", b"/\xff", b"/ /", b"/\t", b"/\0", b"/\x7f", b"/%00", b"/" + b"x" * 1100),
]
ODD_VERSIONS = [
    *(b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.10", b"http/1.1", b"HTTP/1,1"),
    *(b"HTTP/11", b"", b"HTTP/1.1 ", b"HTTP/1.1\r", b"HTTP/1.1\n", b"XTTP/1.1"),
]
FIELDS = [
    *(b"A: b", b"A:b", b"a:\t b \t", b"Empty:", b"Empty: ", b"Cookie: x=y; z", b"Tilde~: \x80\xff"),
    *(b"Connection: keep-alive", b"Connection: close", b"Connection: x,\tClose", b"Expect: x"),
    *(b"Expect: 100-continue", b"Connection: Upgrade\r\nUpgrade: h2c", b"Upgrade: websocket"),
    *(b"TE: trailers", b"Long: " + b"y" * 300, b"X-Forwarded-For: 1.2.3.4", b"Connection:"),
]
ODD_FIELDS = [
    *(b"A : b", b" A: b", b"A: b\r\n c", b"A: b\r\n\tc", b"A", b": b", b"A\0: b", b"A: \0"),
    *(b"A: b\rc", b"A: b\nC: d", b"A: b\r", b"A: \x7f", b"A: \x0b", b"A\xff: b", b"(A): b"),
    *(b"Host: b", b"Host:", b"Host: a b", b"Host: a, b", b"Hos\r\nt: a", b"\r\n", b"\n", b"\r"),
    *(b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +5", b"Content-Length: 5, 5"),
    *(b"Content-Length:", b"Content-Length: 5 ", b"Content-Length: 0x5", b"Content-Length: 99999"),
    *(b"Content-Length : 5", b"Content-Length: 18446744073709551621", b"Content-Length: 005"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:"),
    *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity"),
    *(b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: identity", b"Transfer-Encoding : x"),
    *(b"Transfer-Encoding:\r\n chunked", b"transfer-encoding: Chunked", b"Long: " + b"y" * 1100),
]
BODIES = [
    *(b"hello", b"", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"x" * 150),
]
EXTENSIONS = [b"", b";a", b";a=b", b';a="b;c"', b";a=b;c"]
ODD_EXTENSIONS = [b" ", b"\t", b";", b";\n", b";\r", b" ;a", b';a="', b";a=b\r\n ", b"x", b";\0"]
TRAILERS = [b"A: b\r\n", b"A:\r\nB: c\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n"]
ODD_TRAILERS = [
    *(b"A : b\r\n", b"A: b\n", b"A\r\n", b" A: b\r\n", b"Content-Length: 5\r\n", b"\r", b"\n"),
]
SIZES = [b"%x", b"%X", b"0%x", b"0000000%X"]
ODD_SIZES = [b"+%x", b"-%x", b"0x%x", b" %x", b"1%x", b"%x0", b"_%x", b"", b"fffffffffffffffff%x"]
LINE_END = [b"\r\n"], [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"", b"x\r\n"]
#: What a mutation puts somewhere.
SPLINTERS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"\xff", b"\x7f", b"/"),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"Content-Length: 3\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"HTTP/1.1", b"-", b"+", b"chunked"),
]


@st.composite
def requests(draw: Draw, is_odd: bool) -> bytes:
    """Draw a request, of which about one part in eight may be odd."""

    def pick(usual: list[bytes], odd: list[bytes]) -> bytes:
        return draw(st.sampled_from(odd if is_odd and draw(st.integers(0, 7)) == 7 else usual))

    def head(*framing: bytes) -> bytes:
        version = pick([b"HTTP/1.1"] * 4 + [b"HTTP/1.0"], ODD_VERSIONS)
        line = b" ".join([pick(METHODS, ODD_METHODS), pick(TARGETS, ODD_TARGETS), version])
        host = pick([b"Host: a"], [b"Host: [::1]:80", b"Host: @", b"X: y"])
        fields = [pick(FIELDS, ODD_FIELDS) for _ in range(draw(st.integers(0, 3)))]
        return b"\r\n".join([line, host, *fields, *framing, b"", b""])

    def chunk(data: bytes) -> bytes:
        size, extension = pick(SIZES, ODD_SIZES), pick(EXTENSIONS, ODD_EXTENSIONS)
        line = (size % len(data) if b"%" in size else size) + extension + pick(*LINE_END)
        return line + data + pick(*LINE_END) if data else line

    framing = draw(st.sampled_from(["none", "none", "length", "chunked"]))
    if framing == "none":
        return head()
    if framing == "length":
        body = draw(st.sampled_from(BODIES))
        return head(b"Content-Length: %d" % len(body)) + body
    data = draw(st.lists(st.sampled_from([one for one in BODIES if one]), max_size=3))
    chunks = b"".join(chunk(one) for one in [*data, b""])
    trailer = pick([b"", b"", *TRAILERS], ODD_TRAILERS)
    return head(b"Transfer-Encoding: chunked") + chunks + trailer + pick(*LINE_END)


def mutated(draw: Draw, data: bytes) -> bytes:
    """Cut something out, put something in, say something twice, or end early."""
    start = draw(st.integers(0, len(data)))
    end = start + draw(st.integers(0, 8))
    into = draw(st.sampled_from(SPLINTERS))
    middles = [b"", into, data[start:end] * 2, into + data[start:end]]
    return data[:start] + draw(st.sampled_from([middle + data[end:] for middle in middles] + [b""]))


MANNERS = st.builds(
    Manner,
    st.sampled_from([End.STAY, End.STAY, End.HALF_CLOSE, End.RESET]),
    turns=st.sampled_from([0, 1, 1, 6]),
    reads=st.sampled_from([1 << 20, 50]),
    is_one_of_many=st.booleans(),
)


@st.composite
def inputs(draw: Draw) -> Input:
    """Draw what a client sends, and some manners of sending it."""
    is_valid = draw(st.integers(0, 3)) == 0
    data = b"".join(draw(st.lists(requests(not is_valid), min_size=1, max_size=4)))
    if not is_valid:
        for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
            data = mutated(draw, data)
    steps = st.sampled_from([1, 2, 3, 7]).map(lambda step: list(range(0, len(data), step)))
    cuts = st.lists(st.integers(0, len(data)), max_size=6) | steps
    return Input(data, draw(st.lists(st.tuples(cuts, MANNERS), min_size=3, max_size=3)), is_valid)
