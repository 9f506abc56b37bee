"""What the audit makes of answers: of friendlyhello's, through proxies, and of others'."""

import pytest

from audit.answer import readable
from tests.audit.auditing import Answering, Speaking, answer, check, failures, page, refused


def chunked(number: int) -> bytes:
    body = page(number)[1]
    cut = [body[:7], body[7:]]
    chunks = "".join(f"{len(part):x}\r\n{part}\r\n" for part in cut) + "0\r\n\r\n"
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json"
    return f"{head}\r\n\r\n{chunks}".encode()


@pytest.mark.parametrize(
    ("speak", "closing"),
    [
        (answer, False),
        (lambda n: answer(n, "Content-Type: application/json; charset=utf-8"), False),
        (lambda n: answer(n, "content-type: Application/JSON ;charset=UTF-8"), False),
        (chunked, False),
        (lambda n: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(n), False),
        (lambda n: b"HTTP/1.1 100 Continue\r\n\r\n" + answer(n), False),
        (lambda n: answer(n, "Connection: keep-alive", first="HTTP/1.0 200 OK"), False),
        (lambda n: answer(n, first="HTTP/1.0 200 OK"), True),
        (lambda n: answer(n, "Connection: close"), True),
        (lambda n: answer(n, "Connection: Foo, Close"), True),
    ],
    ids=[
        *("HTTP/1.1", "charset", "capitals", "chunked", "early hints", "continue"),
        *("HTTP/1.0 kept", "HTTP/1.0", "close", "close in a list"),
    ],
)
def test_friendlyhello_is_known_however_proxies_put_it_and_connections_are_kept_where_it_allows(
    speak: Answering, closing: bool, speaking: Speaking
) -> None:
    for flags, made in ([], 7), (["--keep-alive"], 7 if closing else 2):
        server = speaking(speak, closing=closing)
        result = check(server.url, "--requests=7", "--concurrency=1", "--exclusive", *flags)
        assert (result.returncode, result.stderr) == (0, ""), result.stdout
        assert server.connections == made  # the first visit's is its own


def redirect(target: str, status: int = 301) -> bytes:
    return answer(0, f"Location: {target}", body="", first=f"HTTP/1.1 {status} Moved")


@pytest.mark.parametrize(
    ("status", "location", "told"),
    [
        *((status, "https://hello.example/", "{location}") for status in (301, 302, 303, 307, 308)),
        (301, "/hello/?a=b", "{url}{location}"),
        (301, "//[bad", "{location}"),
    ],
)
def test_a_redirect_is_told(status: int, location: str, told: str, speaking: Speaking) -> None:
    url = speaking(lambda n: redirect(location, status)).url
    to = told.format(url=url, location=location)
    assert refused(url) == f"{url} answers with a redirect to {to}; audit that\n"


def test_later_redirects_are_failures(speaking: Speaking) -> None:
    server = speaking(lambda n: answer(n) if n < 4 else redirect("https://hello.example/", 302))
    assert failures(server.url, requests=9) == {"redirected": 6}


NO_JSON = "not friendlyhello's JSON"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (301, "", "status 301"),  # a redirect without a target
        (404, "nothing", "status 404"),
        (200, "<html>", NO_JSON),
        (200, "<html>" + 100_000 * "x", NO_JSON),
        (200, "[]", NO_JSON),
        (200, '{"visits": 1}', NO_JSON),
        (200, '{"name": "x", "hostname": "a\\u001b[2J", "visits": 1}', NO_JSON),
        (200, '{"name": "x", "hostname": "\\ud800", "visits": 1}', NO_JSON),
        (200, '{"name": "x", "hostname": "a", "visits": true}', NO_JSON),
        (200, '{"name": "x", "hostname": "a", "visits": ' + "9" * 5000 + "}", NO_JSON),
        (200, "[" * 60_000, NO_JSON),
    ],
    ids=[
        *("no target", "404", "HTML", "large", "list", "other JSON"),
        *("control characters", "surrogate", "boolean", "digits", "depth"),
    ],
)
def test_another_server_is_one_line(status: int, body: str, said: str, speaking: Speaking) -> None:
    url = speaking(lambda n: (status, body)).url
    assert refused(url) == f"{url} does not answer as friendlyhello does: {said}\n"


def test_an_answer_whose_head_has_no_end_is_a_failed_visit(speaking: Speaking) -> None:
    server = speaking(lambda n: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000)
    assert failures(server.url, "--concurrency=1") == {"answer too large": 3}


@pytest.mark.parametrize(
    ("text", "shown"), [("für 3", "für 3"), ("a\x1b[2J\nb", "a\\x1b[2J\\nb"), ("", "")]
)
def test_what_a_server_says_is_shown_as_it_is_where_a_terminal_may_show_it(
    text: str, shown: str
) -> None:
    assert readable(text) == shown
