"""``python server.py --healthcheck`` asks whether the server is alive.

It imports little, because each container runs it every few seconds.
"""

import contextlib
import http.client
import socket
import ssl
import sys
from typing import NoReturn

import config
from config import Settings
from process.messages import fail

#: Seconds for each step: connecting, sending, and each part of the answer.
TIMEOUT = 2.0


def what_is_wrong(settings: Settings) -> str | None:
    """Ask the server that has these settings for ``/healthz``.

    The health check does not verify the server's certificate, because the certificate is for the
    name that clients use, and not for localhost. When clients must show a certificate, the health
    check has none to show. So it takes only the server's part of the TLS handshake. This too shows
    that the server's event loop turns.

    :return: what is wrong with the server, or None when it is healthy.
    """
    host = {None: "localhost", "0.0.0.0": "127.0.0.1"}.get(settings.address, settings.address)
    where = (str(host), settings.port)
    try:
        if settings.tls_client_ca:
            _see_handshake(where)
            return None
        if settings.tls_cert:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                *where, timeout=TIMEOUT, context=_trusting_anyone()
            )
        else:
            connection = http.client.HTTPConnection(*where, timeout=TIMEOUT)
        with contextlib.closing(connection):
            headers = {"Host": _host_header(*where)}
            connection.request("GET", f"{settings.path_prefix}/healthz", headers=headers)
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host} port {settings.port}: {error}"
    return None if status == 200 else f"{host} port {settings.port} answered {status}"


def _host_header(host: str, port: int) -> str:
    """Return the ``Host`` header without a zone: only this machine knows its zones (RFC 6874, 4).

    Python 3.11.2 by itself sends the zone.
    """
    name = host.partition("%")[0]
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _trusting_anyone() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _see_handshake(where: tuple[str, int]) -> None:
    """Take part in a TLS handshake until the server has proved that it has its key.

    In TLS 1.3 the client shows its certificate after this proof (RFC 8446, 2). The health check
    leaves before, so the server has nothing to refuse or to log.

    :raises OSError: when the server does not prove that it has its key.
    """
    context = _trusting_anyone()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(received, to_send)
    with socket.create_connection(where, TIMEOUT) as connection:
        while True:
            try:
                return client.do_handshake()
            except ssl.SSLWantReadError:
                connection.sendall(to_send.read())
                if not (data := connection.recv(65536)):
                    raise ConnectionError("closed in the TLS handshake") from None
                received.write(data)


def check_health() -> NoReturn:
    """End with status 0 if the server is healthy, with 1 if not, and with 2 for a bad setting."""
    try:
        wrong = what_is_wrong(config.load())
    except config.SettingError as error:
        fail(2, error)
    if wrong:
        fail(1, wrong)
    sys.exit(0)
