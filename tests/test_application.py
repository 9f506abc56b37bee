"""What the application leaves out of Tornado's way of a request makes no difference to handlers."""

from types import SimpleNamespace

import pytest
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    RequestStartLine,
)

from application import PlainRequest


def both(host: str, target: str = "/") -> list[HTTPServerRequest]:
    """Return a request as ours and as Tornado's."""
    connection = HTTPConnection()
    connection.context = SimpleNamespace(  # type: ignore[attr-defined]
        remote_ip="192.0.2.1", protocol="https"
    )
    line = RequestStartLine("GET", target, "HTTP/1.1")
    headers = HTTPHeaders({"Host": host, "Cookie": "a=b"})
    server = object()
    return [
        PlainRequest(connection, server, line, headers),
        HTTPServerRequest(
            connection=connection, server_connection=server, start_line=line, headers=headers
        ),
    ]


@pytest.mark.parametrize("target", ["/", "/nothing/%20", "*", ""])
@pytest.mark.parametrize("host", ["Example.org", "example.org:8080", "[::1]:80", "192.0.2.7", ""])
def test_a_request_without_query_is_what_tornado_makes_of_it(host: str, target: str) -> None:
    ours, theirs = (vars(request) for request in both(host, target))
    times = [one.pop("_start_time") for one in (ours, theirs)]
    assert ours == theirs
    assert abs(times[1] - times[0]) < 60


def test_requests_share_nothing_that_a_handler_may_change() -> None:
    one, other = both("a")[0], both("a")[0]
    for name in ("arguments", "query_arguments", "body_arguments", "files"):
        assert getattr(one, name) is not getattr(other, name)
    assert one.arguments is not one.query_arguments
    assert one.cookies["a"].value == "b"
    assert one.full_url() == "https://a/"


@pytest.mark.parametrize("host", ["a,b", "a b", "a/b", "\x7f"])
def test_a_malformed_host_is_refused_each_time(host: str) -> None:
    for _ in range(2):
        with pytest.raises(HTTPInputError):
            both(host)
