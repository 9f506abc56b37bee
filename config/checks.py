"""Checks of settings. A check takes the text of a setting, and returns its value.

If the text is not allowed, the check raises `ValueError`. The message of this error is what the
user reads after "allowed is".
"""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def readable(text: str) -> str:
    r"""Return a text of the system in a form that UTF-8 can encode.

    Python reads bytes that are not UTF-8 as lone surrogates (PEP 383), which no page can hold. This
    function turns them into escapes, as in ``caf\xe9``.
    """
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def host_name() -> str:
    """Return the name of this machine, fit for a page. In a container it is the container's id."""
    return readable(socket.gethostname())


def path(text: str) -> str:
    """Accept any path. It is used later, when the file is opened."""
    if not text or "\0" in text:
        raise ValueError("the path of a file")
    return text


def address(text: str) -> str:
    """Accept an IP address or a host name (RFC 1123, section 2.1)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        label = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
        if not re.fullmatch(rf"{label}(\.{label})*\.?", text) or len(text) > 253:
            raise ValueError("an IP address or a host name") from None
    return text


def listening_address(text: str) -> str | None:
    """Accept what `address` accepts. ``::`` means every interface, as if the setting were unset.

    A socket that Tornado binds to ``::`` takes IPv6 alone (IPV6_V6ONLY; RFC 3493, 5.3). In most
    other programs it takes IPv4, too, and users expect this.

    :return: the address; None for every interface.
    """
    with contextlib.suppress(ValueError):
        if (one := ipaddress.ip_address(text)).version == 6 and one.is_unspecified:
            return None
    return address(text)


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a check of whole numbers, from ``least`` to ``most``."""

    def check(text: str) -> int:
        # int() alone would also take "8_0", " 80 " and the digits of other scripts.
        if re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"a whole number from {least} to {most}")

    return check


def seconds(least: float) -> Callable[[str], float]:
    """Return a check of seconds, from ``least`` to an hour."""
    most = 3600

    def check(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", text):
            number = float(text)
            if least <= number <= most:
                return number
        raise ValueError(f"seconds, a number from {least:g} to {most}")

    return check


def boolean(text: str) -> bool:
    """Accept true, false, 1, 0, yes and no, in any case."""
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if (word := text.lower()) not in words:
        raise ValueError("true or false")
    return words[word]


def label(text: str) -> str:
    """Accept a text that may be part of a header, of a log line and of a metric's label."""
    if not re.fullmatch(r"[A-Za-z0-9._+~:/@-]{1,128}", text):
        raise ValueError("1 to 128 letters, digits and ._+~:/@-")
    return text


#: The most labels of a replica. The live page of any replica reads all of them once a second.
MAX_LABELS = 8


def labels(text: str) -> dict[str, str]:
    """Accept ``key=value,…``. A label with an empty value is left out.

    The downward API of Kubernetes may give an empty value.
    Prometheus must accept the keys. It keeps ``__…`` for itself
    (https://prometheus.io/docs/concepts/data_model/#metric-names-and-labels).
    """
    found: dict[str, str] = {}
    for one in readable(text).split(","):
        key, equals, value = one.partition("=")
        if (
            not (re.fullmatch("(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,62}", key) and equals)
            or key in found
            or key in ("version", "program_version")  # `friendlyhello_info` has these already
            or not (len(value) <= 128 and value.isprintable())
            or len(found) == MAX_LABELS
        ):
            raise ValueError(
                f"key=value,… , at most {MAX_LABELS}: each key once, up to 63 letters, digits and "
                "_, not version, program_version or __…; each value up to 128 printable characters"
            )
        found[key] = value
    return {key: value for key, value in found.items() if value}


def share(text: str) -> float:
    """Accept a share: a number from 0 to 1."""
    if re.fullmatch(r"[01](\.[0-9]{0,9})?|\.[0-9]{1,9}", text) and float(text) <= 1:
        return float(text)
    raise ValueError("a number from 0 to 1")


def path_prefix(text: str) -> str:
    """Accept a path, and return it without the slash at its end: for ``/`` an empty text.

    All clients write the allowed characters in the same way (RFC 3986, 2.3). The segments ``.`` and
    ``..`` are not allowed, because clients remove them (RFC 3986, 5.2.4).
    """
    if not re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*/?", text) or len(text) > 128:
        raise ValueError("a path such as /hello: up to 128 letters, digits and -._~/")
    return text.removesuffix("/")


def networks(text: str) -> tuple[Network, ...]:
    """Accept networks, each an address and the length of its prefix (RFC 4632, RFC 4291, 2.3)."""
    try:
        return tuple(_network(one.strip(" ")) for one in text.split(","))
    except ValueError:
        raise ValueError(
            "networks such as 10.0.0.0/8,fd00::/8, with no bits set after the prefix"
        ) from None


def _network(text: str) -> Network:
    # ip_network() alone would also take masks and zones. An IPv4 address that is mapped into IPv6
    # counts as IPv4, so a network of such addresses would never match.
    network = ipaddress.ip_network(text)
    is_mapped = network.version == 6 and network.network_address.ipv4_mapped
    if is_mapped or not re.fullmatch("[0-9A-Fa-f:.]+(/[0-9]{1,3})?", text):
        raise ValueError
    return network


def choice(*words: str, **others: str) -> Callable[[str], str]:
    """Return a check of some words, in any case.

    :arg words: the words that are allowed.
    :arg others: other words that are allowed, each with the word that it means.
    """
    allowed = {word: word for word in words} | others
    *first, last = allowed

    def check(text: str) -> str:
        if (word := text.lower()) not in allowed:
            raise ValueError(f"{', '.join(first)} or {last}")
        return allowed[word]

    return check
