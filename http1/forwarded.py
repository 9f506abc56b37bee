"""What proxies say about a request: the client's address, and the scheme.

Each proxy appends the address of its own client to ``X-Forwarded-For``, and writes the scheme into
``X-Forwarded-Proto``. Any client can send the same headers, so the server believes them only from a
trusted proxy.
"""

import functools
import ipaddress
import re
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: An address as proxies write it. Some add the port, and put an IPv6 address into brackets. A zone
#: (``%eth0``) has a meaning only on the proxy's own machine, so this does not match it.
_ELEMENT = re.compile(
    r"(?P<v4>[0-9.]+)(:[0-9]{1,5})?|\[(?P<v6>[0-9A-Fa-f:.]+)\](:[0-9]{1,5})?|(?P<bare>[0-9A-Fa-f:.]+)"
)

#: Characters of the longest element; a longer one counts as no address.
_LONGEST = 53


class TrustedProxies:
    """Finds the client behind the trusted proxies.

    :arg networks: the networks of the proxies. An IPv4 address that is mapped into IPv6 (RFC 4291,
        2.5.5.2) counts as IPv4.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        # To parse an address takes 3 us, and proxies send the same addresses again and again.
        self._look = functools.lru_cache(maxsize=1024)(self._look_anew)

    def trusts(self, peer: str) -> bool:
        """Tell whether a peer's address is a trusted proxy's."""
        found = self._look(peer.partition("%")[0])
        return found is not None and found[1]

    def client(self, forwarded: str, peer: str) -> str:
        """Return the last address in ``X-Forwarded-For`` that is not a trusted proxy's.

        If all addresses are trusted proxies', it returns the first one. Nobody can trust what is
        left of a malformed address. So it returns the address to the right of the malformed one, or
        the peer's if there is none.

        :arg forwarded: the header; several are joined by commas, in their order.
        :arg peer: the address of a trusted proxy, which sent the header.
        """
        client = peer
        for element in reversed(forwarded.split(",")):
            text = element.strip(" \t")
            found = self._look(text) if len(text) <= _LONGEST else None
            if found is None:
                break
            client, is_trusted = found
            if not is_trusted:
                break
        return client

    def _look_anew(self, text: str) -> tuple[str, bool] | None:
        """Return an address in its usual form, and whether it is trusted; None for no address."""
        if not (match := _ELEMENT.fullmatch(text)):
            return None
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        try:
            if match["v4"]:
                address = ipaddress.IPv4Address(match["v4"])
            else:
                address = ipaddress.IPv6Address(match["v6"] or match["bare"])
                address = address.ipv4_mapped or address
        except ValueError:
            return None
        return str(address), any(address in network for network in self._networks)


def scheme(forwarded: str, default: str) -> str:
    """Return the last scheme in ``X-Forwarded-Proto``, which the nearest proxy wrote.

    :arg forwarded: the header.
    :arg default: the scheme to return if the last one is neither ``http`` nor ``https``.
    """
    last = forwarded.rpartition(",")[2].strip(" \t").lower()
    return last if last in ("http", "https") else default
