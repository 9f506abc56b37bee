"""``X-Forwarded-For`` and ``X-Forwarded-Proto``: whom they name, and who is not believed."""

import ipaddress

import pytest

from http1.forwarded import TrustedProxies, scheme

NETWORKS = ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]
PEER = "10.0.0.1"

PROXIES = TrustedProxies([ipaddress.ip_network(one) for one in NETWORKS])


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
        ("203.0.113.9", "203.0.113.9"),
        # The last one that is no trusted proxy, whatever a client wrote before it.
        ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("1.1.1.1,203.0.113.9\t, 10.9.9.9,192.0.2.7", "203.0.113.9"),
        ("1.1.1.1, 10.0.0.2, 203.0.113.9, 10.0.0.3", "203.0.113.9"),
        ("nonsense, 203.0.113.9, 10.0.0.3", "203.0.113.9"),
        # All are trusted: the first.
        ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
        # IPv6, as it is usually written.
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("2001:db8::1, fd00::2", "2001:db8::1"),
        ("::ffff:203.0.113.9, ::ffff:10.0.0.3", "203.0.113.9"),
        ("::FFFF:CB00:7109", "203.0.113.9"),
        # With ports.
        ("203.0.113.9:567", "203.0.113.9"),
        ("1.1.1.1, [2001:db8::1]:80, 10.0.0.3:8, [fd00::2]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("203.0.113.9, unknown", PEER),
        ("203.0.113.9, unknown, 10.0.0.3", "10.0.0.3"),
        ("203.0.113.9, , 10.0.0.3", "10.0.0.3"),
        *((malformed, PEER) for malformed in MALFORMED),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxys(
    forwarded: str, client: str
) -> None:
    assert PROXIES.client(forwarded, PEER) == client


def test_the_scheme_is_that_of_the_nearest_proxy() -> None:
    for forwarded in ("https", "HTTPS ", "http,https"):
        assert scheme(forwarded, "default") == "https", forwarded
    for forwarded in ("http", "https, http"):
        assert scheme(forwarded, "default") == "http", forwarded
    for forwarded in ("", "ftp", "https,", "https, x", "httpss", "wss"):
        assert scheme(forwarded, "default") == "default", forwarded
