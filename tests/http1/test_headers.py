"""Headers that messages have alike are kept once; what is done to one message's is its own."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from http1.head import MAX_CACHED, format_head, parse_head
from http1.headers import ByName, CommonHeaders, PackedFields
from http1.tornado_internals import AnswerHeaders, CheckedHeaders

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


def test_a_head_that_came_before_is_as_it_came_and_long_ones_are_not_kept() -> None:
    for _ in range(2):
        headers = parse_head(HEAD).headers()
        accepted = [("Accept", "text/html"), ("Accept", "*/*")]
        assert list(headers.get_all()) == [("Host", "a"), *accepted]
        headers.add("Accept", "text/plain")
        headers["Host"] = "b"
        headers["X-New"] = "1"
        del headers["Accept"]
    assert parse_head(HEAD) is parse_head(HEAD)
    long = HEAD.replace(b"*/*", b"*" * MAX_CACHED)
    assert parse_head(long) is not parse_head(long)


names = st.sampled_from(["A", "B-C", "Content-Length", "Host"])
values = st.lists(st.text(st.characters(codec="latin-1", exclude_characters="\n\r")), min_size=1)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), names, st.sampled_from(["x", "1"])),
        st.tuples(st.just("__setitem__"), names, st.sampled_from(["x", "1"])),
        st.tuples(st.just("pop"), names, st.none()),
    )
)


@given(st.dictionaries(names, values), changes)
def test_headers_in_one_text_are_what_they_are_in_lists(
    by_name: ByName, done: list[tuple[str, str, str | None]]
) -> None:
    packed = PackedFields(by_name)
    assert dict(packed) == by_name
    assert len(packed) == len(by_name)
    both = CheckedHeaders(packed.copy()), CheckedHeaders(dict(by_name))
    for change, name, value in done:
        for headers in both:
            getattr(headers, change)(name, value)
    one, other = both
    assert sorted(one.get_all()) == sorted(other.get_all())
    for name in ("A", "B-C", "Content-Length", "Host", "Nowhere"):
        assert one.get(name) == other.get(name)
        assert one.get_list(name) == other.get_list(name)
    assert dict(packed) == by_name, "what is done to a copy is done to it alone"


COMMON: ByName = {"Content-Type": ["text/html"], "Vary": ["Accept"]}


@pytest.fixture
def answer() -> AnswerHeaders:
    return AnswerHeaders(CommonHeaders(COMMON), {"X-Id": ["1"]})


def as_sent(headers: AnswerHeaders) -> list[str]:
    status, *lines, end, after = format_head(200, "OK", headers).decode().split("\r\n")
    assert (status, end, after) == ("HTTP/1.1 200 OK", "", "")
    return sorted(lines)


def test_an_answer_has_its_own_headers_and_the_common_ones(answer: AnswerHeaders) -> None:
    answer["content-length"] = "7"
    assert (answer.get("x-id"), answer.get("VARY"), answer.get("Etag")) == ("1", "Accept", None)
    assert (answer["Content-Length"], answer.get("Etag", "none")) == ("7", "none")
    sent = ["Content-Length: 7", "Content-Type: text/html", "Vary: Accept", "X-Id: 1"]
    assert as_sent(answer) == sent
    assert sorted(answer) == ["Content-Length", "Content-Type", "Vary", "X-Id"]
    assert as_sent(answer) == sent  # now that it was looked at


def test_a_common_header_that_is_changed_is_changed_in_one_answer(answer: AnswerHeaders) -> None:
    other = AnswerHeaders(answer.common, {})
    answer["content-type"] = "application/json"
    assert as_sent(answer) == ["Content-Type: application/json", "Vary: Accept", "X-Id: 1"]
    answer.add("Vary", "Cookie")
    own = ["Content-Type: application/json", "Vary: Accept", "Vary: Cookie", "X-Id: 1"]
    assert as_sent(answer) == own
    assert (answer["Content-Type"], answer.get("Vary")) == ("application/json", "Accept,Cookie")
    del answer["Vary"]
    assert "Vary" not in answer
    assert as_sent(answer) == ["Content-Type: application/json", "X-Id: 1"]
    assert as_sent(other) == ["Content-Type: text/html", "Vary: Accept"]


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nb", "\r\n"])
def test_no_line_end_is_in_a_header(value: str, answer: AnswerHeaders) -> None:
    with pytest.raises(ValueError, match="Illegal characters"):
        CommonHeaders({"X-App-Version": [value]})
    answer["X-Own"] = value
    for reason, headers in ("OK", answer), (value, CheckedHeaders({})):
        with pytest.raises(ValueError, match="Illegal characters"):
            format_head(200, reason, headers)
