"""Who asks, and for what; whom ``X-Forwarded-For`` and ``X-Forwarded-Proto`` name."""

import ipaddress
from typing import Any

import pytest

from http1.forwarded import TrustedProxies, scheme
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


PEER = "10.0.0.1"
PROXIES = TrustedProxies(
    [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "192.0.2.7/32", "fd00::/8")]
)


def test_a_proxy_is_trusted_by_its_network() -> None:
    ours = ["10.255.255.255", "192.0.2.7", "fdff::1", "fd00::1%eth0", "::ffff:10.0.0.1"]
    others = ["11.0.0.0", "192.0.2.8", "fe80::1%eth0", "::ffff:11.0.0.1", "::10.0.0.1", "unix", ""]
    assert [peer for peer in (*ours, *others) if PROXIES.trusts(peer)] == ours


#: What is no address, and cannot be trusted.
MALFORMED = [
    *("", ",", "unknown", "_hidden", "unix:", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4"),
    *("1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "1.2.3.4/8", "٨.1.1.1", "[1.2.3.4]", "[::1"),
    *("::1]", "[::1]80", "[]", ":", ":80", "::1::", "::1%eth0", '"203.0.113.9"', "203.0.113.9 x"),
    *("203.0.113.9\x0b", "\xa0203.0.113.9", "1" * 500, "::ffff:1.2.3.4:80", "203.0.113.9;x"),
    *("for=203.0.113.9", "203.0.113.9\n"),
]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        # The last one that is no trusted proxy, whatever a client wrote before it.
        ("1.1.1.1,203.0.113.9\t, 10.9.9.9,192.0.2.7", "203.0.113.9"),
        ("1.1.1.1, 10.0.0.2, 203.0.113.9, 10.0.0.3", "203.0.113.9"),
        ("nonsense, 203.0.113.9, 10.0.0.3", "203.0.113.9"),
        # All are trusted: the first.
        ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
        # IPv6, as it is usually written, and ports.
        ("2001:DB8:0:0::1, fd00::2", "2001:db8::1"),
        ("::ffff:203.0.113.9, ::ffff:10.0.0.3", "203.0.113.9"),
        ("::FFFF:CB00:7109", "203.0.113.9"),
        ("203.0.113.9:567", "203.0.113.9"),
        ("1.1.1.1, [2001:db8::1]:80, 10.0.0.3:8, [fd00::2]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("203.0.113.9, unknown, 10.0.0.3", "10.0.0.3"),
        ("203.0.113.9, , 10.0.0.3", "10.0.0.3"),
        *((malformed, PEER) for malformed in MALFORMED),
    ],
)
def test_client_is_the_last_address_that_is_no_trusted_proxys(forwarded: str, client: str) -> None:
    assert PROXIES.client(forwarded, PEER) == client


def test_the_scheme_is_that_of_the_nearest_proxy() -> None:
    for expected, forwarded in (
        ("https", ["https", "HTTPS ", "http,https"]),
        ("http", ["http", "https, http"]),
        ("default", ["", "ftp", "https,", "https, x", "httpss", "wss"]),
    ):
        assert {one: scheme(one, "default") for one in forwarded} == dict.fromkeys(
            forwarded, expected
        )


@pytest.mark.parametrize(
    ("method", "target", "status", "uri", "host"),
    [
        ("GET", "http://b/echo?x=y", 200, "/echo?x=y", "b"),
        ("GET", "HTTP://B:80", 200, "/", "B:80"),
        ("GET", "https://[::1]:8/", 200, "/", "[::1]:8"),
        ("GET", "http://b?x", 200, "/?x", "b"),
        ("OPTIONS", "http://a", 200, "/", "a"),  # 3.2.4 has it sent on as "*", which is for proxies
        ("OPTIONS", "*", 404, "", ""),  # the whole server (3.2.4); it has no page
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
