"""What a setting's text may be: a check returns its value, or says what is allowed.

Each takes the text, and raises `ValueError` with the words that follow "allowed is".
"""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def readable(text: str) -> str:
    r"""Return a text of the system's as UTF-8 can have it.

    Bytes that are not UTF-8 come as lone surrogates (PEP 383), with which no page could be written;
    they become escapes, as in ``caf\xe9``.
    """
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def host_name() -> str:
    """Return this machine's name, a container's id in a container, fit for a page."""
    return readable(socket.gethostname())


def path(text: str) -> str:
    """Accept any path, which is looked at when the file is."""
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
    """Accept the same, but for ``::``, which is every interface, as it is when unset.

    Bound to that address, Tornado's sockets take IPv6 alone (IPV6_V6ONLY; RFC 3493, 5.3). Those of
    most other programs take both, and so it is meant.
    """
    with contextlib.suppress(ValueError):
        if (one := ipaddress.ip_address(text)).version == 6 and one.is_unspecified:
            return None
    return address(text)


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a check of whole numbers, from the least to the most."""

    def check(text: str) -> int:
        # Not int() alone, which also takes "8_0", " 80 " and other scripts' digits.
        if re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"a whole number from {least} to {most}")

    return check


def seconds(least: float) -> Callable[[str], float]:
    """Return a check of seconds, from the least to an hour."""
    most = 3600

    def check(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", text):
            number = float(text)
            if least <= number <= most:
                return number
        raise ValueError(f"seconds, a number from {least:g} to {most}")

    return check


def boolean(text: str) -> bool:
    """Accept true and false, or what is as clear, in any case."""
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if (word := text.lower()) not in words:
        raise ValueError("true or false")
    return words[word]


def label(text: str) -> str:
    """Accept what may be part of a header, of a log line and of a metric's label."""
    if not re.fullmatch(r"[A-Za-z0-9._+~:/@-]{1,128}", text):
        raise ValueError("1 to 128 letters, digits and ._+~:/@-")
    return text


#: Labels that there may be: each is read by whoever watches any replica, once a second.
MAX_LABELS = 8


def labels(text: str) -> dict[str, str]:
    """Accept ``key=value,…``; one whose value is empty, as a downward API may give it, is left out.

    Keys are those of Prometheus, which keeps ``__…`` for itself
    (https://prometheus.io/docs/concepts/data_model/#metric-names-and-labels).
    """
    found: dict[str, str] = {}
    for one in readable(text).split(","):
        key, equals, value = one.partition("=")
        if (
            not (re.fullmatch("(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,62}", key) and equals)
            or key in found
            or key in ("version", "program_version")  # which `friendlyhello_info` has besides
            or not (len(value) <= 128 and value.isprintable())
            or len(found) == MAX_LABELS
        ):
            raise ValueError(
                f"key=value,… , at most {MAX_LABELS}: a key of up to 63 letters, digits and _, "
                "once, not version, program_version nor __…; a value of up to 128 printable "
                "characters"
            )
        found[key] = value
    return {key: value for key, value in found.items() if value}


def share(text: str) -> float:
    """Accept a share of the whole, which is 1."""
    if re.fullmatch(r"[01](\.[0-9]{0,9})?|\.[0-9]{1,9}", text) and float(text) <= 1:
        return float(text)
    raise ValueError("a number from 0 to 1")


def path_prefix(text: str) -> str:
    """Accept a path, and return it without the slash at its end; "" when it is that alone.

    Its characters are those that no client writes in two ways (RFC 3986, 2.3), and no segment is
    one that clients take out of a path (5.2.4).
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
            "networks, separated by commas, as in 10.0.0.0/8,fd00::/8: no bits set after the prefix"
        ) from None


def _network(text: str) -> Network:
    # Not ip_network() alone, which also takes masks and zones. IPv4 mapped into IPv6 would never
    # match, as such an address counts as IPv4.
    network = ipaddress.ip_network(text)
    is_mapped = network.version == 6 and network.network_address.ipv4_mapped
    if is_mapped or not re.fullmatch("[0-9A-Fa-f:.]+(/[0-9]{1,3})?", text):
        raise ValueError
    return network


def choice(*words: str, **others: str) -> Callable[[str], str]:
    """Return a check of some words, in any case.

    :arg others: what may be said instead of one of them.
    """
    allowed = {word: word for word in words} | others
    *first, last = allowed

    def check(text: str) -> str:
        if (word := text.lower()) not in allowed:
            raise ValueError(f"{', '.join(first)} or {last}")
        return allowed[word]

    return check
