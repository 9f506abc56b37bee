"""Addresses: how URLs write them, and how sentinels and the nodes of a cluster tell them."""

import contextlib
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import AskError, ConnectionError

#: A host and a port.
Address = tuple[str, int]

_DEFAULT_PORT = {"sentinel": 26379, "cluster": 6379}

#: What a node sends in place of a host: a node that is set to tell no host, or a node that is set
#: to tell its name and has none (https://redis.io/docs/latest/commands/cluster-slots/).
_UNKNOWN = ("", "?")


class NoWayError(ConnectionError):
    """The sentinels, or the nodes of the cluster, do not know where Redis is."""


def split(url: str) -> tuple[str, str, list[Address], str]:
    """Return the parts of a Redis URL.

    :return: what leads to Redis: ``sentinel``, ``cluster``, or nothing; the name of the Sentinel
        service; the addresses of the sentinels or nodes; and the URL that redis-py can read.
    """
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

    :arg words: what the server sent. It should be a host and a port.
    :arg by: the server's own address.
    :raises NoWayError: when the words are no address.
    """
    with contextlib.suppress(TypeError, ValueError):
        host, port = (word.decode() if isinstance(word, bytes) else word for word in words)
        if isinstance(host, str) and host and 0 < int(port) < 65536:
            return host, int(port)
    raise NoWayError(f"{by[0]}:{by[1]} tells no valid address: {ascii(words)[:100]}")


def redirected(error: AskError, by: Address) -> Address:
    """Return the address that a cluster's node redirects to.

    When the node tells no host, the host is the node's own:
    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#moved-redirection

    :arg error: the redirection.
    :arg by: the node's own address.
    :raises NoWayError: when the redirection holds no address.
    """
    return told((by[0] if error.host in _UNKNOWN else error.host, error.port), by)


def certificate_name(host: str) -> str:
    """Return the name that a host's certificate must have. TLS sends this name to the host.

    Only the resolver uses the dot at the end of a name
    (https://www.rfc-editor.org/rfc/rfc6066#section-3). Only the system uses the link of an IPv6
    address, as in ``fe80::1%eth0``.
    """
    return host.partition("%")[0].removesuffix(".")
