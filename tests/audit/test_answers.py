"""What the audit makes of answers: of friendlyhello's, through proxies, and of others'."""

import json
from collections.abc import Callable

import pytest

from tests.audit.auditing import SpeakingServer, check, page, refused

Speaking = Callable[..., SpeakingServer]


def answer(
    number: int, *headers: str, body: str | None = None, first: str = "HTTP/1.1 200 OK"
) -> bytes:
    body = page(number)[1] if body is None else body
    lines = [first, f"Content-Length: {len(body.encode())}", *headers]
    if not any(line.lower().startswith("content-type") for line in headers):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", body]).encode()


def chunked(number: int) -> bytes:
    body = page(number)[1]
    cut = [body[:7], body[7:]]
    chunks = "".join(f"{len(part):x}\r\n{part}\r\n" for part in cut) + "0\r\n\r\n"
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json"
    return f"{head}\r\n\r\n{chunks}".encode()


@pytest.mark.parametrize(
    "speak",
    [
        lambda n: answer(n, "Content-Type: application/json; charset=utf-8"),
        lambda n: answer(n, "content-type: Application/JSON ;charset=UTF-8"),
        chunked,
        lambda n: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(n),
        lambda n: b"HTTP/1.1 100 Continue\r\n\r\n" + answer(n),
    ],
    ids=["charset", "capitals", "chunked", "early hints", "continue"],
)
def test_friendlyhello_is_known_however_proxies_put_it(
    speak: Callable[[int], bytes], speaking: Speaking
) -> None:
    for flags in ([], ["--keep-alive"]):
        server = speaking(speak)
        url = f"http://127.0.0.1:{server.port}"
        result = check(url, "--requests=20", "--concurrency=1", "--exclusive", *flags)
        assert (result.returncode, result.stderr) == (0, ""), result.stdout


@pytest.mark.parametrize(
    ("speak", "closing", "made"),
    [
        (lambda n: answer(n, first="HTTP/1.0 200 OK"), True, 7),
        (lambda n: answer(n, "Connection: close"), True, 7),
        (lambda n: answer(n, "Connection: Foo, Close"), True, 7),
        (lambda n: answer(n, "Connection: keep-alive", first="HTTP/1.0 200 OK"), False, 2),
        (answer, False, 2),
    ],
    ids=["HTTP/1.0", "close", "close in a list", "HTTP/1.0 kept", "HTTP/1.1"],
)
def test_a_connection_is_kept_only_where_the_answer_allows_it(
    speak: Callable[[int], bytes], closing: bool, made: int, speaking: Speaking
) -> None:
    server = speaking(speak, closing=closing)
    url = f"http://127.0.0.1:{server.port}"
    result = check(url, "--requests=7", "--concurrency=1", "--keep-alive", "--exclusive")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert server.connections == made  # the first visit's is its own


def redirect(target: str, status: int = 301) -> Callable[[int], bytes]:
    headers = (f"Location: {target}", "Content-Type: text/html")
    return lambda n: answer(n, *headers, body="", first=f"HTTP/1.1 {status} Moved")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://hello.example/", "https://hello.example/"),
        ("/hello/?a=b", "{url}/hello/?a=b"),
        ("//[bad", "//[bad"),
    ],
)
def test_a_redirect_is_told_with_its_target(
    status: int, location: str, told: str, speaking: Speaking
) -> None:
    url = f"http://127.0.0.1:{speaking(redirect(location, status)).port}"
    error = refused(url)
    assert (
        error == f"check.py: {url} answers with a redirect to {told.format(url=url)}; audit that\n"
    )


def test_a_redirect_without_a_target_is_no_page(speaking: Speaking) -> None:
    server = speaking(lambda n: answer(n, body="", first="HTTP/1.1 301 Moved"))
    url = f"http://127.0.0.1:{server.port}"
    error = refused(url)
    assert error == f"check.py: {url} does not answer as friendlyhello does: status 301\n"


def test_later_redirects_are_failures(speaking: Speaking) -> None:
    away = redirect("https://hello.example/", 302)
    server = speaking(lambda n: answer(n) if n < 4 else away(n))
    result = check(f"http://127.0.0.1:{server.port}", "--requests=9", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["failures"] == {"redirected": 6}


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "x", "hostname": "a\\u001b[2J", "visits": 1}',
        '{"name": "x", "hostname": "\\ud800", "visits": 1}',
        '{"name": "x", "hostname": "a", "visits": true}',
        '{"name": "x", "hostname": "a", "visits": ' + "9" * 5000 + "}",
        "[" * 60_000,
    ],
    ids=["control characters", "surrogate", "boolean", "digits", "depth"],
)
def test_what_no_friendlyhello_says_is_said_in_one_line(body: str, speaking: Speaking) -> None:
    url = f"http://127.0.0.1:{speaking(lambda n: answer(n, body=body)).port}"
    assert refused(url).endswith(": not friendlyhello's JSON\n")


def test_an_answer_whose_head_has_no_end_is_a_failed_visit(speaking: Speaking) -> None:
    server = speaking(lambda n: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000)
    url = f"http://127.0.0.1:{server.port}"
    done = check(url, "--requests=3", "--concurrency=1")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "answer too large" in done.stdout
