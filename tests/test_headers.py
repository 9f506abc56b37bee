"""Headers that messages have alike are kept once; what is done to one message's is its own."""

from headers import CheckedHeaders
from http1.head import SHORT, parse_head

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nAccept: */*\r\n\r\n"


def test_what_is_added_to_one_is_in_no_other() -> None:
    kept = {"Vary": ["Accept"]}
    one, other = CheckedHeaders(dict(kept)), CheckedHeaders(dict(kept))
    one.add("vary", "Cookie")
    one.add("X-New", "1")
    one.get_list("Vary").append("Host")
    assert one.get_list("VARY") == ["Accept", "Cookie"]
    assert one["Vary"] == "Accept,Cookie"
    assert dict(other) == {"Vary": "Accept"}
    assert kept == {"Vary": ["Accept"]}


def test_a_head_that_came_before_is_as_it_came() -> None:
    for _ in range(2):
        headers = parse_head(HEAD).headers()
        assert list(headers.get_all()) == [
            ("Host", "a"),
            ("Accept", "text/html"),
            ("Accept", "*/*"),
        ]
        headers.add("Accept", "text/plain")
        headers["Host"] = "b"
        headers["X-New"] = "1"
        del headers["Accept"]


def test_long_heads_are_not_kept() -> None:
    long = HEAD.replace(b"*/*", b"*" * SHORT)
    assert parse_head(long) is not parse_head(long)
    assert parse_head(HEAD) is parse_head(HEAD)
