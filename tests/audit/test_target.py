"""Where the audit goes: URLs, other places to connect to, headers, and whom it trusts."""

import contextlib
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from audit.client import Place, Target
from tests.audit.auditing import SpeakingServer, check, refused, run_check
from tests.audit.test_answers import answer
from tests.support.before import run_before
from tests.support.ports import full_backlog
from tests.support.program import Program
from tests.support.proxy import Proxy

Speaking = Callable[..., SpeakingServer]


def failures(*arguments: str) -> dict[str, int]:
    result = check(*arguments, "--requests=3", "--json")
    assert result.stderr == ""
    return dict(json.loads(result.stdout)["failures"])


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
def test_a_url_says_where_to_connect_and_which_host_is_named(
    url: str, host: str, to: Place
) -> None:
    target = Target(url)
    assert (target.headers["Host"], target._place) == (host, to)


@pytest.mark.parametrize(
    "text",
    ["", "h", "h:", ":80", "h:0", "h:65536", "::1:80", "[::1]", "[::1]x:80", "[h]:80", "a/b:80"],
)
def test_a_place_that_is_none_is_refused(text: str) -> None:
    error = refused("http://h", f"--connect={text}")
    assert f"{text!r}: allowed is HOST:PORT, IPv6 in brackets" in error


def test_ipv6_is_visited(speaking: Speaking) -> None:
    server = speaking(answer, host="::1")
    assert failures(f"http://[::1]:{server.port}") == {}
    assert failures("http://nobody.invalid", f"--connect=[::1]:{server.port}") == {}


def test_the_connection_goes_elsewhere_and_the_url_is_named(speaking: Speaking) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("hello.invalid").configure_cert(tls)
    with authority.cert_pem.tempfile() as ca:
        server = speaking(answer, tls=tls)
        to = f"--connect=127.0.0.1:{server.port}"
        assert failures("https://hello.invalid/a", to, f"--cacert={ca}") == {}
        assert set(server.names) == {"hello.invalid"}
        assert all("\r\nHost: hello.invalid\r\n" in head for head in server.heads)
        other = failures("https://other.invalid", to, f"--cacert={ca}")
        reason = "Hostname mismatch, certificate is not valid for 'other.invalid'"
        assert other == {f"certificate not trusted: {reason}": 3}


def test_other_authorities_than_those_trusted_are_not(
    folder: Path, program: Callable[..., Program]
) -> None:
    trusted, other = trustme.CA(), trustme.CA()
    for name, authority in (("trusted", trusted), ("other", other)):
        authority.cert_pem.write_to_path(str(folder / name))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trusted.issue_cert("localhost").configure_cert(tls)
    with Proxy([program().port], tls) as proxy:
        url = f"https://localhost:{proxy.port}"
        assert failures(url, f"--cacert={folder / 'trusted'}") == {}
        unknown = {"certificate not trusted: unable to get local issuer certificate": 3}
        assert failures(url, f"--cacert={folder / 'other'}") == unknown
        assert failures(url) == unknown
        assert failures(url, "--insecure") == {}
        assert failures(url.replace("localhost", "127.0.0.1"), "--insecure") == {}


def test_a_certificate_is_shown_to_servers_that_want_one(folder: Path, speaking: Speaking) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    url = f"https://localhost:{speaking(answer, tls=tls).port}"
    ours = authority.issue_cert("audit.invalid")
    authority.cert_pem.write_to_path(str(folder / "ca"))
    ours.private_key_and_cert_chain_pem.write_to_path(str(folder / "both"))
    ours.private_key_pem.write_to_path(str(folder / "key"))
    ours.cert_chain_pems[0].write_to_path(str(folder / "cert"))
    trust = f"--cacert={folder / 'ca'}"
    assert failures(url, trust, f"--cert={folder / 'both'}") == {}
    assert failures(url, trust, f"--cert={folder / 'cert'}", f"--key={folder / 'key'}") == {}
    assert sum(failures(url, trust).values()) == 3


def test_an_encrypted_key_is_refused_and_no_password_asked_for(folder: Path) -> None:
    ours = trustme.CA().issue_cert("audit.invalid")
    ours.cert_chain_pems[0].write_to_path(str(folder / "cert"))
    key = load_pem_private_key(ours.private_key_pem.bytes(), None)
    how = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "key").write_bytes(key.private_bytes(*how))
    files = [f"--cert={folder / 'cert'}", f"--key={folder / 'key'}"]
    said = refused("https://h", *files)
    assert said.endswith(": allowed is a certificate and its unencrypted key, in PEM\n")


def test_headers_replace_those_sent_by_default(speaking: Speaking) -> None:
    server = speaking(answer)
    url = f"http://127.0.0.1:{server.port}"
    given = ("Host: hello.invalid", "user-agent:me", "X-A: 1", "X-A:\t2 \t3 ", "X-Empty:")
    assert failures(url, *(f"--header={one}" for one in given)) == {}
    lines = server.heads[0].split("\r\n")
    for line in ("Host: hello.invalid", "User-Agent: me", "X-A: 1", "X-A: 2 \t3", "X-Empty: "):
        assert lines.count(line) == 1
    assert [line for line in lines if line.startswith(("Host", "User-Agent"))] == [
        "Host: hello.invalid",
        "User-Agent: me",
    ]


@pytest.mark.parametrize(
    "header",
    [
        "X",
        "a b: secret",
        "X : secret",
        ": secret",
        "X: secret\nY: z",
        "X: secret\r",
        "X: secret\0",
        "X: sécret",
        "Connection: close",
        "content-length: 0",
        "TRANSFER-ENCODING: chunked",
        "Accept-Encoding: gzip",
    ],
)
def test_a_header_not_to_be_sent_is_refused_without_its_value(header: str) -> None:
    error = refused("http://h", f"--header={header}")
    assert error.startswith("check.py: argument --header: ")
    assert "allowed" in error
    assert "secret" not in error


@pytest.mark.parametrize(
    ("url", "arguments", "said"),
    [
        ("http://h", ["--connect=h"], "argument --connect: 'h': allowed is HOST:PORT"),
        ("http://h", ["--header=Host: a", "--header=host: b"], "--header Host is allowed once"),
        ("http://h", ["--cacert=x"], "--cacert is allowed with an https:// URL"),
        ("http://h", ["--insecure"], "--insecure is allowed with an https:// URL"),
        ("https://h", ["--insecure", "--cacert=x"], "not allowed with argument --insecure"),
        ("https://h", ["--key=x"], "--key is allowed with --cert"),
        ("https://h", ["--cacert=/no/such"], "--cacert /no/such: No such file or directory"),
        ("https://h", ["--cacert="], "--cacert : "),
        ("http://h", ["--key="], "--key is allowed with an https:// URL"),
        ("http://h", ["--plot="], "--plot : "),
        ("https://h", ["--cert=/"], "--cert /: Is a directory"),
        ("https://h", [f"--cacert={__file__}"], "allowed is a file of certificates in PEM"),
        ("https://h", [f"--cert={__file__}"], "allowed is a certificate and its unencrypted key"),
        ("http://me:secret@h", [], "no user is allowed in it"),
        ("http://@h", [], "no user is allowed in it"),
        ("http://me:secret@a b", [], "the URL: not a URL such as"),
        ("me:secret@h", [], "the URL: not a URL such as"),
        ("http://[::1", [], "http://[::1: not a URL such as"),
        ("http://[::1]x:80", [], "not a URL such as"),
        ("http://h:0", [], "not a URL such as"),
        ("http://.", [], "not a URL such as"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_is_allowed(
    url: str, arguments: list[str], said: str
) -> None:
    error = refused(url, *arguments)
    assert said in error
    assert "secret" not in error


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
def test_the_next_address_is_tried_when_the_first_does_not_answer(
    hangs: bool, folder: Path, speaking: Speaking
) -> None:
    server = speaking(answer, host="::1")
    code = """
from tests.support.names import Names
Names({"two.invalid": ["127.0.0.1", "::1"]}).install()
"""
    env = os.environ | run_before(folder, code)
    with full_backlog("127.0.0.1", server.port) if hangs else contextlib.nullcontext():
        result = run_check(f"http://two.invalid:{server.port}", "--requests=3", env=env)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
