"""The certificate and key of HTTPS. Their files may change."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from config import SettingError, Settings, flag_of, shown

#: Seconds between two looks at the files. After a change, the server waits for a look that finds no
#: further change, and then reads the files, because a renewal replaces certificate and key one
#: after the other.
LOOK_EVERY = 1.0

#: How OpenSSL says that a key does not belong to a certificate (`X509_check_private_key(3)`). It
#: says ``NO_CERTIFICATE_ASSIGNED`` when the two have different types.
NOT_A_PAIR = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}

#: The state of a file: its device, its number, and the time when its content, its links or its
#: permissions last changed (inode(7)). None when there is no file.
_State = tuple[int, int, int] | None

#: The ciphers of TLS 1.2. All have forward secrecy and authenticated encryption (RFC 9325, 4.2).
#: The ciphers of TLS 1.3 always have both.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

log = logging.getLogger("friendlyhello.tls")


class Certificate:
    """The certificate that the server shows, and the authority that signs clients' certificates.

    TLS 1.3 is allowed, and TLS 1.2 with `CIPHERS`.

    :arg settings: they name the files.
    :raises SettingError: when a file cannot be used. The message says which file, and why.
    """

    def __init__(self, settings: Settings) -> None:
        self._paths = {
            flag_of(name): path
            for name in ("tls_cert", "tls_key", "tls_client_ca")
            if (path := getattr(settings, name)) is not None
        }
        self._used = self._look()
        self.context, _ = self._load()
        """For new connections."""

    async def follow(self, use: Callable[[ssl.SSLContext], None]) -> None:
        """Read the files again whenever they change, until the task is cancelled.

        If the new files cannot be used, one line in the log says so, and the old ones stay in use.

        :arg use: gets the new context after a change.
        """
        before = None  # so a worker that starts late reads changed files at once
        complaint = ""
        while True:
            now = self._look()
            if now == self._used:
                complaint = ""
            elif before in (None, now):
                try:
                    self.context, until = self._load()
                except (SettingError, OSError) as error:  # later it may work, so try again
                    if str(error) != complaint:
                        log.warning("%s; going on with the old TLS files", error)
                    complaint = str(error)
                else:
                    self._used = now
                    use(self.context)
                    log.info("TLS files read again, certificate valid until %s", until)
            before = now
            await asyncio.sleep(LOOK_EVERY)

    def _look(self) -> list[_State]:
        return [_state(path) for path in self._paths.values()]

    def _load(self) -> tuple[ssl.SSLContext, str]:
        """Read the files.

        :return: a context that uses them, and the time until which the certificate is valid.
        """
        text = {flag: self._read(flag) for flag in self._paths}
        itself = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        itself.check_hostname = False
        itself.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust this certificate alone
        self._trust(itself, "--tls-cert", text["--tls-cert"])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        context.set_ciphers(CIPHERS)
        self._load_pair(context)
        try:
            until = _shake_hands(context, itself)["notAfter"]
        except ssl.SSLError as error:
            self._refuse("--tls-cert", getattr(error, "verify_message", None) or error)
        if (flag := "--tls-client-ca") in text:
            self._trust(context, flag, text[flag])
            context.verify_mode = ssl.CERT_REQUIRED
            if not any(_is_valid_now(authority) for authority in context.get_ca_certs()):
                self._refuse(flag, "no certificate of an authority that is valid now")
        return context, until

    def _read(self, flag: str) -> str:
        path = Path(self._paths[flag])
        try:
            if not path.is_file() and path.exists():
                self._refuse(flag, "not a regular file")
            return path.read_text("ascii", "ignore")  # PEM is ASCII; its comments may be not
        except OSError as error:
            self._refuse(flag, error.strerror)

    def _trust(self, context: ssl.SSLContext, flag: str, pem: str) -> None:
        try:
            context.load_verify_locations(cadata=pem)
        except (ssl.SSLError, ValueError):
            self._refuse(flag, "no certificate in PEM form")

    def _load_pair(self, context: ssl.SSLContext) -> None:
        def is_encrypted() -> NoReturn:
            self._refuse("--tls-key", "encrypted; it has to be readable without a password")

        cert, key = self._paths["--tls-cert"], self._paths["--tls-key"]
        try:
            context.load_cert_chain(cert, key, password=is_encrypted)
        except ssl.SSLError as error:
            if error.reason in NOT_A_PAIR:
                self._refuse("--tls-key", f"not the key of --tls-cert={shown(cert)}")
            if error.reason:  # such as EE_KEY_TOO_SMALL
                self._refuse("--tls-cert", error.reason.replace("_", " ").lower())
            self._refuse("--tls-key", "no private key in PEM form")

    def _refuse(self, flag: str, why: object) -> NoReturn:
        raise SettingError(f"{flag}={shown(self._paths[flag])}: {why}") from None


def _state(path: str) -> _State:
    try:
        found = Path(path).stat()  # stat() follows links
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Let a client check the server's certificate, and return the certificate's fields.

    :raises ssl.SSLError: when the certificate is not valid, or not valid now.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    for side in (asking, serving, asking, serving, asking):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    certificate = asking.getpeercert()
    assert certificate is not None
    return certificate


def _is_valid_now(certificate: dict[str, Any]) -> bool:
    begin, end = (ssl.cert_time_to_seconds(certificate[at]) for at in ("notBefore", "notAfter"))
    return begin <= time.time() <= end
