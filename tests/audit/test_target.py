"""Where the audit goes: URLs, other places to connect to, headers, and whom it trusts."""

import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from audit.client import Place, Target, tls_context
from tests.audit.conftest import Speaking, failures, page, refused
from tests.support import Patch
from tests.support.names import Names
from tests.support.ports import full_backlog, held_port


class Authority(trustme.CA):
    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = str(file)
        self.cert_pem.write_to_path(self.file)

    def tls(self, *names: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture
def authority(folder: Path) -> Authority:
    return Authority(folder / "ca.pem")


@pytest.mark.parametrize(
    ("url", "host", "to"),
    [
        ("http://h", "h", Place("h", 80)),
        ("https://h", "h", Place("h", 443)),
        ("HTTP://H.example.:8080/a?b", "H.example.:8080", Place("h.example.", 8080)),
        ("http://h:/", "h:", Place("h", 80)),
        ("http://[::1]", "[::1]", Place("::1", 80)),
        ("http://[fe80::1%25eth0]:81", "[fe80::1]:81", Place("fe80::1%eth0", 81)),
        ("http://[fe80::1%eth0]:81", "[fe80::1]:81", Place("fe80::1%eth0", 81)),
    ],
)
def test_a_url_says_where_to_connect_and_the_host(url: str, host: str, to: Place) -> None:
    target = Target(url)
    assert (target.headers["Host"], target._place) == (host, to)


def test_ipv6_is_visited(speaking: Speaking) -> None:
    server = speaking(page, at=("::1", 0))
    assert failures(f"http://[::1]:{server.port}") == {}
    assert failures("http://nobody.invalid", f"--connect=[::1]:{server.port}") == {}


@pytest.mark.parametrize("dot", ["", "."])
def test_elsewhere_the_name_of_the_url_is_asked_but_no_dot_at_its_end(
    dot: str, speaking: Speaking, authority: Authority
) -> None:
    server = speaking(page, tls=authority.tls("hello.invalid"))
    given = (f"--connect=127.0.0.1:{server.port}", f"--cacert={authority.file}")
    assert failures(f"https://hello.invalid{dot}/a", *given) == {}
    assert set(server.names) == {"hello.invalid"}
    assert all(f"\r\nHost: hello.invalid{dot}\r\n" in head for head in server.heads)
    reason = "Hostname mismatch, certificate is not valid for 'other.invalid'"
    other = failures(f"https://other.invalid{dot}", *given)
    assert other == {f"certificate not trusted: {reason}": 3}


def test_no_other_authority_trusted(speaking: Speaking, authority: Authority, folder: Path) -> None:
    url = speaking(page, tls=authority.tls("localhost")).url
    assert failures(url, f"--cacert={authority.file}") == {}
    unknown = {"certificate not trusted: unable to get local issuer certificate": 3}
    assert failures(url, f"--cacert={Authority(folder / 'other').file}") == unknown
    assert failures(url) == unknown
    assert tls_context().check_hostname, "it is for a caller to say that it is insecure"
    assert failures(url, "--insecure") == {}
    assert failures(url.replace("localhost", "127.0.0.1"), "--insecure") == {}


def test_a_certificate_can_be_shown(folder: Path, speaking: Speaking, authority: Authority) -> None:
    tls = authority.tls("localhost")
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    url, trust = speaking(page, tls=tls).url, f"--cacert={authority.file}"
    ours = authority.issue_cert("audit.invalid")
    both, key, cert = (str(folder / name) for name in ("both", "key", "cert"))
    ours.private_key_and_cert_chain_pem.write_to_path(both)
    ours.private_key_pem.write_to_path(key)
    ours.cert_chain_pems[0].write_to_path(cert)
    assert failures(url, trust, f"--cert={both}") == {}
    assert failures(url, trust, f"--cert={cert}", f"--key={key}") == {}
    assert sum(failures(url, trust).values()) == 3

    # An encrypted key is refused, and no password asked for.
    loaded = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    how = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    encrypted = serialization.BestAvailableEncryption(b"secret")
    Path(key).write_bytes(loaded.private_bytes(*how, encrypted))
    said = refused(url, f"--cert={cert}", f"--key={key}")
    assert said.endswith(": allowed is a certificate and its unencrypted key, in PEM\n")


def test_headers_replace_those_sent_by_default(speaking: Speaking) -> None:
    server = speaking(page)
    given = ("Host: hello.invalid", "user-agent:me", "X-A: 1", "X-A:\t2 \t3 ", "X-Empty:")
    assert failures(server.url, *(f"--header={one}" for one in given)) == {}
    lines = server.heads[0].split("\r\n")
    for line in ("Host: hello.invalid", "User-Agent: me", "X-A: 1", "X-A: 2 \t3", "X-Empty: "):
        assert lines.count(line) == 1
    assert sum(line.startswith(("Host", "User-Agent")) for line in lines) == 2


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
def test_each_address_is_tried_in_turn(hangs: bool, speaking: Speaking, monkeypatch: Patch) -> None:
    names = Names({"two.invalid": ["127.0.0.1", "::1"]})
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    with held_port() as held:
        port = held.getsockname()[1]
        speaking(page, at=("::1", port))
        with full_backlog("127.0.0.1", port) if hangs else contextlib.nullcontext():
            assert failures(f"http://two.invalid:{port}") == {}
