"""HTTP as h11 reads it: what a connection's requests and answers ought to be.

Where ours accepts a request, h11 accepts it too and reads the same. But for these, in which h11
is the stricter one:

- h11 takes no empty line before a request; RFC 9112, 2.2, has one ignored.
- h11 takes no bytes beyond ASCII in a request's target; Tornado does, and refuses none.
- h11 reads nothing after an HTTP/1.0 request, nor after one that asks for another protocol until
  it has been answered; Tornado keeps the first when it is asked to, and ours does not switch.

What ours refuses and h11 takes needs no list: it is free to refuse (bare line feeds, lists of
equal lengths, a Host that is none).
"""

import contextlib
import re
from typing import NamedTuple

import h11

from tests.fuzz.application import Request

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ALL = 1 << 30  # bytes, where h11 wants a limit


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool
    is_continued: bool  # 100 came before it


def requests_in(data: bytes) -> list[Request]:
    """Read what a client sends, up to what is no request or not whole, or to its last one.

    The last may have no body, when its headers are whole and its body is not.
    """
    requests = []
    while data := re.sub(rb"^(\r\n)+", b"", data):
        line, end, rest = data.partition(b"\r\n")
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_ALL)
        parser.receive_data(bytes(min(byte, 0x7E) for byte in line) + end + rest)
        try:
            head = parser.next_event()
            if not isinstance(head, h11.Request):
                break
            target = line.split(b" ")[1].decode("latin1")
            body = _body(parser)
        except h11.RemoteProtocolError:
            break
        requests.append(_request(head, target, body))
        if body is None or not _is_kept(head):
            break
        data = parser.trailing_data[0]
    return requests


def _body(parser: h11.Connection) -> bytes | None:
    body = bytearray()
    with contextlib.suppress(h11.RemoteProtocolError):
        while isinstance(event := parser.next_event(), h11.Data):
            body += event.data
        if isinstance(event, h11.EndOfMessage):
            return bytes(body)
    return None


def _request(head: h11.Request, target: str, body: bytes | None) -> Request:
    fields: dict[str, list[str]] = {}
    for name, value in head.headers:
        fields.setdefault(name.decode("latin1"), []).append(value.decode("latin1"))
    return Request(head.method.decode("latin1"), target, fields, body)


def _is_kept(head: h11.Request) -> bool:
    values = b",".join(value for name, value in head.headers if name == b"connection")
    options = [option.strip(b" \t") for option in values.lower().split(b",")]
    if b"close" in options or head.http_version >= b"1.1":
        return b"close" not in options
    # It knows no chunks: who sends them may mean something else (RFC 9112, 6.1).
    has_chunks = any(name == b"transfer-encoding" for name, _ in head.headers)
    return b"keep-alive" in options and not has_chunks


def same(ours: Request, theirs: Request) -> bool:
    """Whether two readings of a request agree."""
    path = re.sub(r"^https?://[^/?#]+", "", theirs.target, flags=re.I)
    headers = theirs.headers
    if path != theirs.target:  # its host is what counts (RFC 9112, 3.2.2)
        headers["host"] = ours.headers["host"]
        path = path if path.startswith("/") else f"/{path}"
    if "transfer-encoding" in ours.headers:  # h11 writes it in lower case
        headers["transfer-encoding"] = ours.headers["transfer-encoding"]
    body = None if ours.body is None else theirs.body
    return ours == Request(theirs.method, path, headers, body)


def answers_in(data: bytes, methods: list[str]) -> list[Answer]:
    """Read what a server sent.

    :arg methods: of the requests, in order; what is answered beyond them is taken for a GET.
    """
    answers: list[Answer] = []
    while data and data != CONTINUE:  # nothing may follow it, when the body does not come
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ALL)
        method = methods[len(answers)] if len(answers) < len(methods) else "GET"
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        client.receive_data(b"")
        answers.append(_answer(client))
        data = client.trailing_data[0] if answers[-1].is_whole else b""
    return answers


def _answer(client: h11.Connection) -> Answer:
    head = client.next_event()
    is_continued = isinstance(head, h11.InformationalResponse)
    if is_continued:
        assert head.status_code == 100
        head = client.next_event()
    assert isinstance(head, h11.Response), f"no answer: {head}"
    headers = {name.decode("latin1"): value.decode("latin1") for name, value in head.headers}
    assert len(headers) == len(head.headers), "a header twice"
    body = bytearray()
    is_whole = True
    try:
        while isinstance(event := client.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError as error:
        if "without sending complete message body" not in str(error):
            raise
        is_whole = False
    return Answer(head.status_code, headers, bytes(body), is_whole, is_continued)
