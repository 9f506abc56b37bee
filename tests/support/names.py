"""Names whose addresses a test makes up, and whose look-ups hang on demand."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from tests.support.waiting import wait_until

_real = socket.getaddrinfo


class Names:
    """Stands in for the system's resolver, for the names that it is given.

    :arg addresses: of each name, in the order in which they are to be tried.
    """

    def __init__(self, addresses: dict[str, list[str]]) -> None:
        self.addresses = addresses
        self.hanging: set[str] = set()
        """Names whose look-ups hang that begin."""
        self.asked: Counter[str] = Counter()
        self.let_go = threading.Event()

    def install(self) -> None:
        """Stand in for it from now on, in a program of the test's own."""
        socket.getaddrinfo = self.getaddrinfo  # type: ignore[assignment]

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host not in self.addresses:
            return list(_real(host, port, *args, **options))
        self.asked[host] += 1
        if host in self.hanging:
            self.let_go.wait()
        found = self.addresses[host]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [one for address in found for one in _real(address, port, *args, **options)]


def look_ups() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name.removeprefix("look-up of ") for name in names if name.startswith("look-up of ")]


def names_of(addresses: dict[str, list[str]]) -> Iterator[Names]:
    """Make up addresses in this process until the test is over, as a fixture does."""
    one = Names(addresses)
    with patch("socket.getaddrinfo", one.getaddrinfo):
        yield one
        one.let_go.set()
        wait_until(lambda: not look_ups())
