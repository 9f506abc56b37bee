"""Where something listens, as URLs write it, and as sentinels and nodes of a cluster tell it."""

import contextlib
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import AskError, ConnectionError

#: A host and a port.
Address = tuple[str, int]

_DEFAULT_PORT = {"sentinel": 26379, "cluster": 6379}

#: What a node sends to that is not to tell hosts, or that has no name where names are preferred
#: (https://redis.io/docs/latest/commands/cluster-slots/).
_UNKNOWN = ("", "?")


class NoWayError(ConnectionError):
    """Those who are to know where Redis is do not."""


def split(url: str) -> tuple[str, str, list[Address], str]:
    """Return what leads to Redis (nothing, sentinel, cluster), and the URL without it."""
    scheme, _, kind = url.partition(":")[0].partition("+")
    if not kind:
        return "", "", [], url
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster":
        service, database = "", ""
    seeds = []
    for host in hosts.split(","):
        seed = urlsplit(f"//{host}")
        seeds.append((str(seed.hostname), seed.port or _DEFAULT_PORT[kind]))
    query = f"?{parts.query}" if parts.query else ""
    return kind, service, seeds, f"{scheme}://{user}{at}{hosts.split(',')[0]}/{database}{query}"


def told(words: Any, by: Address) -> Address:
    """Return the address that a server tells.

    :arg words: a host and a port, as far as the server keeps to what it should tell.
    :arg by: the server's own address.
    :raises NoWayError: when it does not.
    """
    with contextlib.suppress(TypeError, ValueError):
        host, port = (word.decode() if isinstance(word, bytes) else word for word in words)
        if isinstance(host, str) and host and 0 < int(port) < 65536:
            return host, int(port)
    raise NoWayError(f"{by[0]}:{by[1]} tells an address that is none: {ascii(words)[:100]}")


def redirected(error: AskError, by: Address) -> Address:
    """Return where a node of a cluster sends to: to its own host when it tells no other.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#moved-redirection

    :raises NoWayError: when that is no address.
    """
    return told((by[0] if error.host in _UNKNOWN else error.host, error.port), by)


def certificate_name(host: str) -> str:
    """Return the name that a host's certificate is for, and that it is asked for by.

    The dot at a name's end is for the resolver only
    (https://www.rfc-editor.org/rfc/rfc6066#section-3), and so is the link of an IPv6 address.
    """
    return host.partition("%")[0].removesuffix(".")
