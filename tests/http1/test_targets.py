"""Who asks, and for what."""

import ipaddress
from typing import Any

import pytest

from tests.support.served import GET, Serve, get

FORWARDED = ("X-Forwarded-For: 4.4.4.4, 5.5.5.5", "X-Forwarded-Proto: https")
TWICE = (
    *("X-Forwarded-For: 6.6.6.6", "X-Real-Ip: 7.7.7.7", "X-Forwarded-Proto: ftp", "X-Scheme: ftp"),
    *("X-Forwarded-For: 4.4.4.4", "X-Forwarded-Proto: https"),
)


def trusting(network: str) -> dict[str, Any]:
    return {"trusted_proxies": [ipaddress.ip_network(network)]}


@pytest.mark.parametrize(
    ("options", "lines", "told"),
    [
        ({}, TWICE, ("127.0.0.1", "http")),
        ({"xheaders": True, "trusted_downstream": ["5.5.5.5"]}, FORWARDED, ("4.4.4.4", "https")),
        (trusting("127.0.0.0/8"), TWICE, ("4.4.4.4", "https")),
        (trusting("10.0.0.0/8"), TWICE, ("127.0.0.1", "http")),
    ],
    ids=["unasked", "as Tornado", "trusted", "another"],
)
async def test_trusted_proxies_alone_are_believed_and_for_their_own_request_alone(
    options: dict[str, Any], lines: tuple[str, ...], told: tuple[str, str], serve: Serve
) -> None:
    client = await serve(**options).connect()
    forwarded = get("/", *lines)
    for request, expected in (forwarded, told), (GET, ("127.0.0.1", "http")), (forwarded, told):
        answer = await client.ask(request)
        assert (answer.json["ip"], answer.json["protocol"]) == expected


@pytest.mark.parametrize(
    ("method", "target", "status", "uri", "host"),
    [
        ("GET", "http://b/echo?x=y", 200, "/echo?x=y", "b"),
        ("GET", "HTTP://B:80", 200, "/", "B:80"),
        ("GET", "https://[::1]:8/", 200, "/", "[::1]:8"),
        ("GET", "http://b?x", 200, "/?x", "b"),
        ("OPTIONS", "http://a", 200, "/", "a"),  # 3.2.4 has it sent on as "*", which is for proxies
        (
            "OPTIONS",
            "*",
            404,
            "",
            "",
        ),  # the whole server (3.2.4); it has no page
        ("CONNECT", "a:80", 405, "", ""),
        ("CONNECT", "/", 405, "", ""),
        ("M-SEARCH", "/", 405, "", ""),
    ],
)
async def test_every_form_of_target_is_answered_and_absolute_form_names_host_and_path(
    method: str, target: str, status: int, uri: str, host: str, serve: Serve
) -> None:
    client = await serve().connect()
    answer = await client.ask(get(target, method=method))
    assert answer.status == status
    assert not uri or (answer.json["uri"], answer.json["host"]) == (uri, host)
    assert (await client.ask(GET)).status == 200
