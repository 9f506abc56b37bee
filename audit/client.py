"""The target of the visits, and the connections to it."""

import asyncio
import errno
import ipaddress
import re
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders
from tornado.iostream import (
    IOStream,
    SSLIOStream,
    StreamClosedError,
    UnsatisfiableReadError,
)

#: Bytes of an answer. A page has some hundred; a larger answer is not friendlyhello's.
MOST_BYTES = 64 * 1024

#: Seconds until the audit tries the next address too, if one does not answer (RFC 8305, 5).
NEXT_ADDRESS_AFTER = 0.25

#: Headers that the command line may not set. Some say how a request is sent, which the audit
#: decides. ``Accept-Encoding`` asks for compressed answers, which the audit cannot read.
REFUSED_HEADERS = ("Accept-Encoding", "Connection", "Content-Length", "Transfer-Encoding")

_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-f:.]+)(?:%(?:25)?(?P<zone>[\w.~-]+))?\]"  # %25 in a URL (RFC 6874)
    r"|(?P<name>[\w.~!$&'()*+,;=-]+))"
    r"(?::(?P<port>[0-9]*))?",
    re.ASCII | re.IGNORECASE,
)
_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110, 5.6.2
_FIELD_VALUE = re.compile(r"[\t -~]*")  # RFC 9110, 5.5, but ASCII only

#: For each of these errors of the system, what this machine has run out of. The server is not at
#: fault.
_OWN = {
    errno.EMFILE: "descriptors (a process may have {most}): a lower --concurrency needs fewer",
    errno.ENFILE: "descriptors, in all processes: a lower --concurrency needs fewer",
    errno.EADDRNOTAVAIL: "local ports: --keep-alive or a lower --rate needs fewer",
    errno.ENOBUFS: "buffers: a lower --concurrency needs fewer",
    errno.ENOMEM: "memory: a lower --concurrency needs less",
}


class RanOut(Exception):
    """The audit's own machine, not the server, lacks something; the message is one line.

    :arg number: the system's error.
    """

    def __init__(self, number: int) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        super().__init__(f"this machine has run out of {_OWN[number].format(most=most)}")


class Place(NamedTuple):
    """A place to connect to."""

    host: str
    """A name or an address, with its zone."""
    port: int


def place(text: str, default_port: int | None = None) -> Place:
    """Return the place that ``HOST:PORT`` names.

    :arg text: an IPv6 address has brackets in it.
    :arg default_port: the port when the text has none; None when the text must have one.
    :raises ValueError: for any other text.
    """
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        raise ValueError("not HOST:PORT")
    port = int(found["port"]) if found["port"] else default_port
    if port is None or not 0 < port < 65536:
        raise ValueError("no port")
    if found["ipv6"]:
        ipaddress.IPv6Address(found["ipv6"])
        return Place(found["ipv6"] + (f"%{found['zone']}" if found["zone"] else ""), port)
    name = found["name"].lower()
    if name == "." or not name.encode("idna"):  # UnicodeError is a ValueError
        raise ValueError("no name")
    return Place(name, port)


def header(text: str) -> tuple[str, str]:
    """Return the name and value of a header that ``Name: value`` sets.

    :raises ValueError: when the header is malformed (RFC 9110, section 5) or may not be set. The
        message leaves the value out, because it may be a secret.
    """
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name):
        raise ValueError(
            "allowed is 'Name: value', the name of letters, digits and !#$%&'*+-.^_`|~"
        )
    if name.title() in REFUSED_HEADERS:
        raise ValueError(f"{name}: any is allowed but {', '.join(REFUSED_HEADERS)}")
    if not _FIELD_VALUE.fullmatch(value):
        raise ValueError(f"{name}: a value of printable ASCII in one line is allowed")
    return name, value.strip(" \t")


def tls_context(
    cacert: str | None = None,
    insecure: bool = False,
    cert: str | None = None,
    key: str | None = None,
) -> ssl.SSLContext:
    """Return the TLS settings for connections to servers.

    :arg cacert: a PEM file of the CAs to trust, in place of the system's.
    :arg insecure: accept any certificate, for any name.
    :arg cert: a PEM file of the certificate that the audit shows to a server that asks for one.
    :arg key: a PEM file of its key, when ``cert`` does not have the key.
    :raises ValueError: when a file cannot be used; the message names the file's option.
    """
    for option, file in (("--cacert", cacert), ("--cert", cert), ("--key", key)):
        try:
            if file is not None:
                Path(file).read_bytes()
        except OSError as error:
            raise ValueError(f"{option} {file}: {error.strerror}") from None
    try:
        context = ssl.create_default_context(cafile=cacert)
    except ssl.SSLError:
        raise ValueError(f"--cacert {cacert}: allowed is a file of certificates in PEM") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, password="")  # without one, OpenSSL would prompt
        except ssl.SSLError:
            files = f"--cert {cert}" + (f" --key {key}" if key else "")
            allowed = "a certificate and its unencrypted key, in PEM"
            raise ValueError(f"{files}: allowed is {allowed}") from None
    return context


class Target:
    """The page that the audit visits.

    :arg url: the page's URL, ``http://`` or ``https://``.
    :arg headers: each visit sends these, in place of default headers of the same names.
    :arg connect: connect to this place; the requests still name the URL's host. None for the
        URL's own place.
    :arg tls: returns the TLS settings for ``https://``.
    :raises ValueError: for any other URL; the message is one line.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        connect: Place | None = None,
        tls: Callable[[], ssl.SSLContext] = tls_context,
    ) -> None:
        shown = "the URL" if "@" in url else url  # an "@" may follow a password
        try:
            parts = urlsplit(url)
            if not url.isprintable() or " " in url or not url.isascii() or "\\" in url:
                raise ValueError("not a URL")
            default_port = {"http": 80, "https": 443}[parts.scheme]
            at = place(parts.netloc.rpartition("@")[2], default_port)
        except (KeyError, ValueError):
            raise ValueError(f"{shown}: not a URL such as http://localhost:4000") from None
        if "@" in parts.netloc:
            raise ValueError("the URL: no user is allowed in it; --header sends Authorization")
        self.url = url
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._place = connect or at
        # The name in the server's certificate. A zone has a meaning on this machine alone (RFC
        # 6874, 1), and the dot at a name's end only for the resolver (RFC 6066, 3).
        self._certified = at.host.partition("%")[0].removesuffix(".")
        self._new_tls = tls
        self._tls = tls() if parts.scheme == "https" else None
        host = re.sub(r"%[^]]*", "", parts.netloc)
        self.headers = HTTPHeaders(
            {"Host": host, "Accept": "application/json", "User-Agent": "check.py"}
        )
        for name, _ in headers:
            self.headers.pop(name, None)
        for name, value in headers:
            self.headers.add(name, value)

    def trust_anew(self) -> None:
        """Read the CAs for ``https://`` again: somebody may have written their file by now.

        :raises ValueError: when a file cannot be used; the message is one line.
        """
        self._tls = self._new_tls()

    async def connect(self) -> IOStream:
        """Return a new connection to the target.

        :raises RanOut: when this machine cannot make more connections.
        :raises OSError: when the target cannot be reached.
        """
        try:
            sock = await _connect_to_any(await _look_up(self._place))
        except OSError as error:
            if error.errno in _OWN and error.errno != errno.EADDRNOTAVAIL:
                raise RanOut(error.errno) from None
            raise
        if self._tls is None:
            stream = IOStream(sock, max_buffer_size=2 * MOST_BYTES)
        else:
            tls = self._tls.wrap_socket(
                sock, server_hostname=self._certified, do_handshake_on_connect=False
            )
            stream = SSLIOStream(tls, max_buffer_size=2 * MOST_BYTES)
            try:
                await stream.wait_for_handshake()
            except BaseException:  # also at a timeout
                stream.close()
                raise
        stream.set_nodelay(True)
        return stream


async def _look_up(to: Place) -> Sequence[Any]:
    """Return the addresses that getaddrinfo(3) finds."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        socket.socket().close()  # raises the true error if the resolver lacked descriptors
        raise


async def _connect_to_any(found: Sequence[Any]) -> socket.socket:
    """Connect to the address that answers first; wait a moment before trying each next one."""
    loop = asyncio.get_running_loop()
    left = list(found)
    tries: list[asyncio.Task[socket.socket]] = []
    pending: set[asyncio.Task[socket.socket]] = set()
    won: asyncio.Task[socket.socket] | None = None
    try:
        while won is None and (left or pending):
            if left:
                tries.append(loop.create_task(_connect_to(left.pop(0))))
                pending.add(tries[-1])
            done, pending = await asyncio.wait(
                pending,
                timeout=NEXT_ADDRESS_AFTER if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            won = next((one for one in done if one.exception() is None), None)
        if won is not None:
            return won.result()
        errors = [error for one in tries if (error := one.exception()) is not None]
        # The first error: getaddrinfo(3) sorts addresses that cannot be reached to the end.
        raise next((error for error in errors if isinstance(error, RanOut)), errors[0])
    finally:
        if lost := [one for one in tries if one is not won]:
            for one in lost:
                one.cancel()
            for end in await asyncio.gather(*lost, return_exceptions=True):
                if isinstance(end, socket.socket):
                    end.close()


async def _connect_to(found: Any) -> socket.socket:
    family, kind, protocol, _, address = found
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException as error:
        sock.close()
        if getattr(error, "errno", None) == errno.EADDRNOTAVAIL and _has_source(family, address):
            raise RanOut(errno.EADDRNOTAVAIL) from None
        raise
    return sock


def _has_source(family: int, address: Any) -> bool:
    """Tell whether this machine has an address to connect from; without IPv6, it has none for ::1.

    :arg address: the address to connect to.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        return datagrams.connect_ex(address) == 0  # with datagrams, connecting sends nothing


def kind_of(error: BaseException) -> str:
    """Name a failure in a few words; the report counts failures of the same name together."""
    if isinstance(error, StreamClosedError):
        return kind_of(error.real_error) if error.real_error else "closed without an answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message.rstrip('.')}"
    for kind, name in (
        (TimeoutError, "timeout"),
        (UnsatisfiableReadError, "answer too large"),
        (ConnectionRefusedError, "refused"),
        ((ConnectionResetError, BrokenPipeError), "reset"),
        (socket.gaierror, "name not resolved"),
        (ssl.SSLError, "TLS failed"),
    ):
        if isinstance(error, kind):
            return name
    return (getattr(error, "strerror", None) or str(error)).lower()
