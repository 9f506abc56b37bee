"""Headers that messages have alike are kept once; what is done to one message's is its own."""

import copy

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tornado.httputil import HTTPHeaders

from http1.head import MAX_CACHED, format_head, parse_head
from http1.headers import ByName, CommonHeaders, PackedFields
from http1.tornado_internals import AnswerHeaders, CheckedHeaders

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nAccept: */*\r\n\r\n"


def test_a_head_that_came_before_is_as_it_came_and_long_ones_are_not_kept() -> None:
    sent = [("Host", "a"), ("Accept", "text/html"), ("Accept", "*/*")]
    for _ in range(2):
        headers = parse_head(HEAD).headers()
        assert list(headers.get_all()) == sent
        headers.add("Accept", "text/plain")
        headers["Host"] = "b"
        headers["X-New"] = "1"
        del headers["Accept"]
    assert parse_head(HEAD) is parse_head(HEAD)
    long = HEAD.replace(b"*/*", b"*" * MAX_CACHED)
    assert parse_head(long) is not parse_head(long)


NAMES = ("A", "B-C", "Content-Length", "Host")
names = st.sampled_from([*NAMES, *(name.lower() for name in NAMES)])
texts = st.text(st.characters(codec="latin-1", exclude_characters="\n\r"))
lists = st.dictionaries(st.sampled_from(NAMES), st.lists(texts, min_size=1))
kinds = st.sampled_from(["add", "__setitem__", "pop"])
changes = st.lists(st.tuples(kinds, names, st.sampled_from(["x", "1"])), max_size=4)


def as_sent(headers: HTTPHeaders) -> list[str]:
    status, *lines, end, after = format_head(200, "OK", headers).decode("latin1").split("\r\n")
    assert (status, end, after) == ("HTTP/1.1 200 OK", "", "")
    return sorted(lines)


@given(lists, lists, changes)
def test_headers_in_one_text_and_those_that_answers_share_are_what_they_are_in_lists(
    common: ByName, own: ByName, done: list[tuple[str, str, str]]
) -> None:
    before = copy.deepcopy((common, own))
    packed, shared = PackedFields(own), CommonHeaders(common)
    assert (len(packed), dict(packed)) == (len(own), own)
    only_own = {name: values for name, values in own.items() if name not in common}
    for headers, in_lists in (
        (CheckedHeaders(packed.copy()), CheckedHeaders(dict(own))),
        (AnswerHeaders(shared, dict(only_own)), CheckedHeaders({**common, **only_own})),
    ):
        for change, name, value in done:
            for one in (headers, in_lists):
                getattr(one, change)(name, value)
            assert as_sent(headers) == as_sent(in_lists)
        looked_up = (*NAMES, "host", "Nowhere")
        for name in looked_up:
            assert headers.get(name, "none") == in_lists.get(name, "none")
        for name in looked_up:
            assert headers.get_list(name) == in_lists.get_list(name)
            assert (name in headers) == (name in in_lists)
            headers.get_list(name).append("a list of its own")
        assert sorted(headers.get_all()) == sorted(in_lists.get_all())
        assert as_sent(headers) == as_sent(in_lists)  # now that it was looked at
    assert (common, own) == before, "what is done to one is done to it alone"


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nb", "\r\n"])
def test_no_line_end_is_in_a_header(value: str) -> None:
    with pytest.raises(ValueError, match="Illegal characters"):
        CommonHeaders({"X-App-Version": [value]})
    answer = AnswerHeaders(CommonHeaders({"Vary": ["Accept"]}), {"X-Own": [value]})
    for reason, headers in ("OK", answer), (value, CheckedHeaders({})):
        with pytest.raises(ValueError, match="Illegal characters"):
            format_head(200, reason, headers)
