"""The answers that the server gives without the application."""

import re
import time
from collections.abc import Callable, Mapping
from http.client import responses

from tornado.httputil import format_timestamp

#: Writes such an answer. It takes the status, what was wrong, and the client's Accept header or "".
#: It returns the headers and the body.
Form = Callable[[int, str, str], tuple[Mapping[str, str], bytes]]

_ACCEPT = re.compile(rb"\r\naccept:[ \t]*([^\r\n]*)\r\n", re.I)

#: The most characters of what was wrong: the text may quote the client at length.
_LONGEST = 200


def refusal(status: int, why: str, accept: str, form: Form | None) -> bytes:
    """Return the last answer of a connection.

    :arg status: the answer's status.
    :arg why: what was wrong.
    :arg accept: the client's Accept header; "" for none.
    :arg form: writes the answer; None for a bare status line, as Tornado sends it.
    """
    line = f"HTTP/1.1 {status} {responses[status]}\r\n"
    if form is None:
        return f"{line}\r\n".encode()
    said = ascii(why)[1:-1][:_LONGEST]
    headers, body = form(status, said, accept)
    fields = {
        "Date": format_timestamp(time.time()),  # RFC 9110, 6.6.1
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{line}{lines}\r\n".encode("latin1") + body


def accept_in(head: bytes) -> str:
    """Return the Accept header of a head; "" for none. The head may be malformed or incomplete."""
    found = _ACCEPT.search(head)
    return found[1].decode("latin1") if found else ""
