"""What proxies say of a request: whose it is, and by which scheme it came.

Proxies write it into ``X-Forwarded-For``, each adding the address that it was connected from, and
into ``X-Forwarded-Proto``. Any client can write the same, so the headers are worth something only
where a proxy that is trusted wrote them.
"""

import functools
import ipaddress
import re
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: An address as proxies write it: some add the port, and put IPv6 into brackets before it. A zone
#: (``%eth0``) means something to the proxy's own machine alone.
_ELEMENT = re.compile(
    r"(?P<v4>[0-9.]+)(:[0-9]{1,5})?|\[(?P<v6>[0-9A-Fa-f:.]+)\](:[0-9]{1,5})?|(?P<bare>[0-9A-Fa-f:.]+)"
)

#: Characters of the longest element; what is longer is not looked at.
_LONGEST = 53


class TrustedProxies:
    """Tells whom requests come from, beyond the proxies that are trusted.

    :arg networks: theirs. An IPv4 address that is mapped into IPv6 (RFC 4291, 2.5.5.2) counts as
        IPv4.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        # Parsing an address takes 3 us, and a chain of proxies sends the same ones again.
        self._look = functools.lru_cache(maxsize=1024)(self._look_anew)

    def trusts(self, peer: str) -> bool:
        """Tell whether a peer, by its address, is such a proxy."""
        found = self._look(peer.partition("%")[0])
        return found is not None and found[1]

    def client(self, forwarded: str, peer: str) -> str:
        """Return the last address of ``X-Forwarded-For`` that is no trusted proxy's.

        When all are, it is the first. What is left of something that is no address cannot be
        trusted: then it is the address to the right of that, or the peer's.

        :arg forwarded: the header; several are joined by commas, in their order.
        :arg peer: the address of a trusted proxy.
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
        """Return an address as it is usually written, and whether it is trusted."""
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
    """Return the last scheme of ``X-Forwarded-Proto``: that of the nearest proxy.

    :arg forwarded: the header.
    :arg default: what it is where that is neither ``http`` nor ``https``.
    """
    last = forwarded.rpartition(",")[2].strip(" \t").lower()
    return last if last in ("http", "https") else default
