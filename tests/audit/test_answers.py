"""What the audit makes of answers: of friendlyhello's, through proxies, and of others'."""

import pytest

from tests.audit.conftest import Answering, Speaking, answer, check, page, refused
from tests.support.waiting import PATIENCE


def chunked(number: int) -> bytes:
    body = page(number)[1]
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json"
    return f"{head}\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("speak", "kept"),
    [
        (answer, True),
        (lambda n: answer(n, "content-type: Application/JSON ;charset=UTF-8"), True),
        (chunked, True),
        (lambda n: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(n), True),
        (lambda n: answer(n, "Connection: keep-alive", first="HTTP/1.0 200 OK"), True),
        (lambda n: answer(n, first="HTTP/1.0 200 OK"), False),
        (lambda n: answer(n, "Connection: Foo, Close"), False),
    ],
    ids=["HTTP/1.1", "capitals", "chunked", "early hints", "HTTP/1.0 kept", "HTTP/1.0", "close"],
)
def test_friendlyhello_is_known_however_proxies_put_it_and_connections_are_kept_where_it_allows(
    speak: Answering, kept: bool, speaking: Speaking
) -> None:
    for flags, made in ([], 7), (["--keep-alive"], 2 if kept else 7):
        server = speaking(speak)
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
    for flags in ([], [f"--wait={PATIENCE}"]):
        assert refused(url, *flags) == f"{url} answers with a redirect to {to}; audit that\n"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (301, ""),  # a redirect without a target
        (404, "nothing"),
        (200, "<html>" + 100_000 * "x"),
        (200, "[]"),
        (200, '{"visits": 1}'),
        (200, '{"name": "x", "hostname": "a\\u001b[2J", "visits": 1}'),
        (200, '{"name": "x", "hostname": 1, "visits": 1}'),
        (200, '{"name": "x", "hostname": "a", "visits": true}'),
        (200, '{"name": "x", "hostname": "a", "visits": ' + "9" * 5000 + "}"),
        (200, "[" * 60_000),
    ],
    ids=[
        *("no target", "404", "large HTML", "list", "other JSON"),
        *("control characters", "no text", "boolean", "digits", "depth"),
    ],
)
def test_another_server_is_one_line(status: int, body: str, speaking: Speaking) -> None:
    url = speaking(lambda n: (status, body)).url
    said = "not friendlyhello's JSON" if status == 200 else f"status {status}"
    assert refused(url) == f"{url} does not answer as friendlyhello does: {said}\n"
