"""What is refused, beyond the table of ``faults/test_clients.py``; the same, however it is cut."""

from http.client import responses

import pytest

from tests.faults.test_clients import TLS_HELLO
from tests.support.served import CHUNKED, GET, Serve, get, post

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"

REFUSED = {
    "absolute form with a Host that is none": b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    "absolute form with a port alone": get("http://:80/"),
    "absolute form without a host": get("http:///x"),
    "codings chunked, identity": CHUNKED.replace(b"chunked", b"chunked, identity") + b"0\r\n\r\n",
    "coding and length in other cases": POST + b"content-length: 5\r\nTRANSFER-ENCODING: CHUNKED"
    b"\r\n\r\n0\r\n\r\n",
    "length twice in other cases": post("content-length: 5") + b"hello",
    "length after a form feed": POST + b"Content-Length: \x0c5\r\n\r\nhello",
    "chunk without its line end": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "chunk size before a tab": CHUNKED + b"5\t\r\nhello\r\n0\r\n\r\n",
    "chunk size in two words": CHUNKED + b"5 5\r\nhello\r\n0\r\n\r\n",
    "chunk extension with CR": CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "chunk extension with NUL": CHUNKED + b"5;\0\r\nhello\r\n0\r\n\r\n",
    "chunk extension before a space": CHUNKED + b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": CHUNKED + b"0\r\nX\r\n\r\n",
    "trailer with a space before its colon": CHUNKED + b"0\r\nX : y\r\n\r\n",
    "trailer with NUL": CHUNKED + b"0\r\nX: \0\r\n\r\n",
    "trailer ended by LF": CHUNKED + b"0\r\nX: y\n\r\n",
    "trailer folded": CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n",
    "trailer with a length": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
}  # fmt: skip

#: What cannot become a request is refused before it ends.
AT_ONCE = [
    *(b"\x00", b" ", b"\n", b"\r\r", b"GET\t", b"GET  ", b"GET /\0", b"GET / P", b"GET / \r"),
    *(b"GET / HTTP/1.1\n", b"GET / HTTP/1.1 ", b"GET /\r\n", b"G\xc3\xa9", b"[", TLS_HELLO[:99]),
    *(b"GET / HTTP/1.1\r\nX\0", b"GET / HTTP/1.1\r\n ", b"GET / HTTP/1.1\r\nX: y\rz"),
    *(CHUNKED + b"5 ", CHUNKED + b"5\r\nhello!", CHUNKED + b"0\r\nX "),
]

LONG = b"x" * 300

#: So is what is too large.
TOO_LARGE = {
    "headers": (GET[:-2] + b"X: " + LONG, 431),
    "request line": (b"GET /" + LONG, 431),
    "length": (POST + b"Content-Length: 301\r\n\r\n", 400),
    "chunk": (CHUNKED + b"12D\r\n" + LONG + b"x", 400),
    "chunk extension": (CHUNKED + b"5;" + LONG, 400),
    "trailer": (CHUNKED + b"0\r\nX: " + LONG, 400),
    "trailer after small chunks": (CHUNKED + b"1\r\nx\r\n" * 99 + b"0\r\nX: " + LONG, 400),
    "empty lines": (b"\r\n" * 150, 431),
}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        *(pytest.param(sent + GET, 400, id=name) for name, sent in REFUSED.items()),
        *(pytest.param(sent, 400, id=repr(sent[-40:])) for sent in AT_ONCE),
        *(pytest.param(*row, id=f"too large: {name}") for name, row in TOO_LARGE.items()),
    ],
)
async def test_it_is_refused_and_reaches_no_handler(sent: bytes, status: int, serve: Serve) -> None:
    served = serve(max_header_size=200, max_body_size=300)
    client = (await served.connect()).send(sent)
    assert await client.rest() == f"HTTP/1.1 {status} {responses[status]}\r\n\r\n".encode()
    assert served.state.begun == []
