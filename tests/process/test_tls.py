"""HTTPS: what is served with which certificate, to whom, and what is refused."""

import asyncio
import contextlib
import datetime
import http.client
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
import trustme

import config
import process.tls
from config import SettingError
from process import Certificate, healthcheck
from tests.conftest import all_closed
from tests.support import Caplog, Patch
from tests.support.here import Serve, refused, run_here
from tests.support.processes import children
from tests.support.program import NOWHERE, Site, Start, ask
from tests.support.raw_http import read_to_end
from tests.support.waiting import PATIENCE, eventually, wait_until

Date = datetime.datetime

authority = trustme.CA()
strangers = trustme.CA()


class Files:
    """A certificate and its key in a folder, and others beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cert, self.key, self.ca = (folder / name for name in ("tls.crt", "tls.key", "ca.pem"))
        authority.cert_pem.write_to_path(self.ca)
        self.put(authority.issue_cert("localhost"))

    def put(self, pair: trustme.LeafCert) -> None:
        """Replace both, each at once, as whoever renews them does."""
        self.replace(self.cert, b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        self.replace(self.key, pair.private_key_pem.bytes())

    def replace(self, path: Path, content: bytes) -> None:
        new = self.folder / "new"
        new.write_bytes(content)
        new.rename(path)

    @property
    def flags(self) -> tuple[str, str]:
        return f"--tls-cert={self.cert}", f"--tls-key={self.key}"

    def certificate(self, *flags: str) -> Certificate:
        return Certificate(config.load([*self.flags, *flags], {}))


def link(path: Path, target: str) -> None:
    new = path.with_name("link")
    new.symlink_to(target)
    new.rename(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def trusting(shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """What a client goes by, which may show a certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if shown:
        shown.configure_cert(context)
    return context


Connect = Callable[..., http.client.HTTPSConnection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    def connect(site: Site, context: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
        secure, place = context or trusting(), ("localhost", site.port)
        one = http.client.HTTPSConnection(*place, timeout=PATIENCE, context=secure)
        one.connect()
        return one

    yield from all_closed(connect)


def serial(connection: http.client.HTTPSConnection) -> object:
    """Which certificate the server has shown on a connection."""
    return connection.sock.getpeercert()["serialNumber"]  # type: ignore[attr-defined]


def agreed(server: Site, version: ssl.TLSVersion, ciphers: str) -> str | None:
    """Return the protocol that is agreed on with a client that has these only, if any is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain,
        contextlib.suppress(ssl.SSLError),
        context.wrap_socket(plain) as secure,
    ):
        return secure.selected_alpn_protocol()
    return None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # for TLS 1.1
def test_only_sound_tls_is_served(files: Files, served: Serve, connect: Connect) -> None:
    server = served(NOWHERE, *files.flags)
    server.wait_for(b"listening on https://")
    connection = connect(server)
    assert ask(connection, "/")[0] == ask(connection)[0] == 200
    old, usual, new = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    # TLS 1.2 is agreed on with forward secrecy and authenticated encryption alone.
    for taken in ((new, "DEFAULT"), (usual, "ECDHE+AESGCM"), (usual, "ECDHE+CHACHA20")):
        assert agreed(server, *taken) == "http/1.1", taken
    weak = ("AES256-GCM-SHA384", "ECDHE+SHA256:ECDHE+SHA384:!AEAD", "kRSA")
    for one in ((old, "DEFAULT"), *((usual, ciphers) for ciphers in weak)):
        assert agreed(server, *one) is None, one
    # What is no TLS ends its connection alone, after the handshake too.
    other = connect(server)
    with socket.socket(fileno=os.dup(connection.sock.fileno())) as garbled:
        garbled.settimeout(PATIENCE)
        garbled.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_to_end(garbled)
    assert ask(other)[0] == 200
    server.stop()
    assert server.log.count(b"SSL Error") == 1, "one line, however often"
    assert b"Fatal" not in server.log


def test_clients_must_show_a_certificate(files: Files, served: Serve, connect: Connect) -> None:
    flags = (*files.flags, f"--tls-client-ca={files.ca}")
    server = served(NOWHERE, *flags)
    ours, stranger = (trusting(one.issue_cert("client.example")) for one in (authority, strangers))
    past = authority.issue_cert("a", not_before=Date(2020, 1, 1), not_after=Date(2021, 1, 1))

    def refuses(context: ssl.SSLContext) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            ask(connect(server, context))

    assert ask(connect(server, ours), "/")[0] == 200
    for context in (trusting(), stranger, trusting(past)):
        refuses(context)
    run_here("--healthcheck", f"--port={server.port}", *flags).check_returncode()
    files.replace(files.ca, strangers.cert_pem.bytes())
    server.wait_for(b"TLS files read again")
    assert ask(connect(server, stranger), "/")[0] == 200
    refuses(ours)
    server.stop()
    assert server.log.count(b"200 GET") == 2


def test_healthcheck_asks_over_tls(files: Files, served: Serve, monkeypatch: Patch) -> None:
    server = served(NOWHERE, *files.flags, "--log-level=debug")
    run_here("--healthcheck", f"--port={server.port}", *files.flags).check_returncode()
    server.stop()
    assert b"200 GET /healthz" in server.log
    assert b"SSL Error" not in server.log
    server = served(NOWHERE)  # it has no TLS
    monkeypatch.setattr(healthcheck, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        for port, said in ((server.port, ""), (deaf.getsockname()[1], "timed out")):
            for more in ((), (f"--tls-client-ca={files.ca}",)):
                health = run_here("--healthcheck", f"--port={port}", *files.flags, *more)
                assert re.search(f"port {port}.*{said}", refused(health, 1))


@pytest.mark.parametrize("given", ["cert", "key", "client-ca"])
def test_one_setting_without_the_other_is_refused_with_status_2(given: str) -> None:
    other = {"cert": "key", "key": "cert", "client-ca": "cert"}[given]
    flag, needed = f"--tls-{given}=/a", f"--tls-{other}"
    assert refused(run_here(flag), 2) == f"{flag}: allowed only together with {needed}"
    variable = f"TLS_{given.upper().replace('-', '_')}"
    assert refused(run_here(**{variable: "/a"}), 2).startswith(f"{variable}=/a: ")
    settings = config.load(["--tls-cert=/a"], {"TLS_KEY": "/b", "TLS_CLIENT_CA": "/c"})
    assert (settings.tls_cert, settings.tls_key, settings.tls_client_ca) == ("/a", "/b", "/c")


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def _encrypt(files: Files) -> None:
    plain = shutil.copy(files.key, files.folder / "plain")
    _openssl("pkey", "-in", plain, "-aes128", "-passout", "pass:hush", "-out", files.key)


def _weaken(files: Files) -> None:
    own = ("-subj", "/CN=a", "-keyout", files.key, "-out", files.cert)
    _openssl("req", "-x509", "-newkey", "rsa:1024", "-nodes", *own)


def _put(files: Files, year: int) -> None:
    valid = {"not_before": Date(year, 1, 1), "not_after": Date(year + 1, 1, 1)}
    files.put(authority.issue_cert("a", **valid))  # type: ignore[arg-type]


def _mismatch(files: Files, key_type: trustme.KeyType) -> None:
    pair = authority.issue_cert("a", key_type=key_type)
    files.key.write_bytes(pair.private_key_pem.bytes())


NO_CERTIFICATE, NO_KEY = "no certificate in PEM form", "no private key in PEM form"
ENCRYPTED = "encrypted; it has to be readable without a password"
ANOTHER = "not the key of --tls-cert={cert}"
NO_FILE = "No such file or directory"
NO_AUTHORITY = "no certificate of an authority that is valid now"

#: What is done to the files, of which it is said, and what.
BAD: dict[str, tuple[Callable[[Files], object], str, str]] = {
    "no key": (lambda f: f.key.unlink(), "key", NO_FILE),
    "empty certificate": (lambda f: os.truncate(f.cert, 0), "cert", NO_CERTIFICATE),
    "half a certificate": (lambda f: os.truncate(f.cert, 300), "cert", NO_CERTIFICATE),
    "junk key": (lambda f: f.key.write_text("é"), "key", NO_KEY),
    "half a key": (lambda f: os.truncate(f.key, 100), "key", NO_KEY),
    "encrypted key": (_encrypt, "key", ENCRYPTED),
    "weak key": (_weaken, "cert", "ee key too small"),
    "expired": (lambda f: _put(f, 2020), "cert", "certificate has expired"),
    "not yet valid": (lambda f: _put(f, 2900), "cert", "certificate is not yet valid"),
    "another's key": (lambda f: _mismatch(f, trustme.KeyType.ECDSA), "key", ANOTHER),
    "key of another type": (lambda f: _mismatch(f, trustme.KeyType.RSA), "key", ANOTHER),
    "endless link": (lambda f: link(f.key, f.key.name), "key", "Too many levels of symbolic links"),
    "pipe": (lambda f: (f.cert.unlink(), os.mkfifo(f.cert)), "cert", "not a regular file"),
    "no authority": (lambda f: f.ca.unlink(), "client-ca", NO_FILE),
    "junk authority": (lambda f: f.ca.write_text("junk"), "client-ca", NO_CERTIFICATE),
    "a client's": (lambda f: shutil.copy(f.cert, f.ca), "client-ca", NO_AUTHORITY),
}
if os.geteuid():  # root may read every file
    BAD["unreadable"] = (lambda f: f.key.chmod(0), "key", "Permission denied")


def test_an_authority_of_the_past_is_refused(files: Files, monkeypatch: Patch) -> None:
    monkeypatch.setattr("process.tls.time", Mock(time=lambda: 1e11))  # trustme's end before
    flag = f"--tls-client-ca={files.ca}"
    with pytest.raises(SettingError, match=f"{flag}: {NO_AUTHORITY}"):
        files.certificate(flag)


def test_every_worker_takes_a_new_pair(files: Files, program: Start, connect: Connect) -> None:
    server = program(NOWHERE, *files.flags, "--processes=2", "--admin-port=0")
    admin = int(server.wait_for(rb"admin port at http://127\.0\.0\.1:(\d+)/")[1])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin)) as plain:
        assert ask(plain, "/version")[0] == 200
    wait_until(lambda: len(children(server.process.pid)) == 2)
    old = connect(server)
    first = serial(old)
    assert ask(old)[0] == 200
    files.put(authority.issue_cert("localhost", not_after=Date(2999, 5, 6)))
    again = rb"TLS files read again, certificate valid until May +6 00:00:00 2999 GMT"
    server.wait_for(rb"(?s)(%s.*){2}" % again)
    assert all(serial(connect(server)) != first for _ in range(20))
    assert ask(old)[0] == 200
    for worker in children(server.process.pid):
        os.kill(worker, signal.SIGKILL)
    # From its first connection on: this one waits until a worker is there to take it.
    assert serial(connect(server)) != first
    server.wait_for(rb"(?s)(%s.*){4}" % again)


@contextlib.asynccontextmanager
async def following(certificate: Certificate) -> AsyncIterator[list[ssl.SSLContext]]:
    """Follow the files, and yield the contexts that it has given since."""
    used: list[ssl.SSLContext] = []
    with patch.object(process.tls, "LOOK_EVERY", 0.01):
        task = asyncio.create_task(certificate.follow(used.append))
        try:
            yield used
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: Caplog) -> None:
    caplog.set_level(logging.INFO, "friendlyhello.tls")


async def looks(certificate: Certificate, number: int) -> None:
    """Wait until it has looked at the files so many times more."""
    with patch.object(certificate, "_look", wraps=certificate._look) as look:
        await eventually(lambda: look.call_count > number)


@pytest.mark.parametrize("what", BAD)
async def test_bad_files_are_one_line_and_change_nothing(
    what: str, files: Files, caplog: Caplog
) -> None:
    spoil, which, why = BAD[what]
    path = {"cert": files.cert, "key": files.key, "client-ca": files.ca}[which]
    # Newer versions of OpenSSL say more.
    line = f"--tls-{which}={path}: {why.format(cert=files.cert)}"
    flag = f"--tls-client-ca={files.ca}"
    certificate = files.certificate(flag)
    before = certificate.context
    async with following(certificate) as used:
        await looks(certificate, 1)
        assert (used, caplog.messages) == ([], []), "what has not changed is not read again"
        spoil(files)
        with pytest.raises(SettingError) as error:
            files.certificate(flag)
        assert str(error.value).startswith(line)
        await eventually(lambda: caplog.messages)
        await looks(certificate, 5)
        (message,) = caplog.messages
        assert message == f"{error.value}; going on with the old TLS files"
        assert (used, certificate.context) == ([], before)
        files.replace(files.ca, authority.cert_pem.bytes())
        files.put(authority.issue_cert("localhost"))
        await eventually(lambda: used)
        assert used == [certificate.context] != [before]
        _, again = caplog.messages
        assert re.fullmatch("TLS files read again, certificate valid until .* GMT", again)


@pytest.mark.parametrize(
    "links",
    [{"tls.crt": "..2/tls.crt", "tls.key": "..2/tls.key"}, {"..data": "..2"}],
    ids=["certbot", "kubernetes"],
)
async def test_links_that_are_changed_one_by_one_are_no_bad_pair(
    links: dict[str, str], files: Files, caplog: Caplog
) -> None:
    """The time between the two of certbot is less than one between two looks."""
    for number in ("..1", "..2"):
        (files.folder / number).mkdir()
        Files(files.folder / number)
    link(files.folder / "..data", "..1")
    for path in (files.cert, files.key):
        link(path, f"..data/{path.name}")
    certificate = files.certificate()
    async with following(certificate) as used:
        await looks(certificate, 1)
        for name, target in links.items():
            link(files.folder / name, target)
            await looks(certificate, 0)  # one between the two
        await eventually(lambda: used)
        assert len(caplog.messages) == len(used) == 1


async def test_a_pair_that_is_valid_later_is_taken_then(files: Files, caplog: Caplog) -> None:
    certificate = files.certificate()
    async with following(certificate) as used:
        begin = Date.fromtimestamp(int(time.time()) + 2, datetime.UTC)
        files.put(authority.issue_cert("a", not_before=begin, not_after=Date(2999, 1, 1)))
        await eventually(lambda: used)
        assert len(caplog.messages) <= 2
