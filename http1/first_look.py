"""One timer for all new connections: most of them end before they need a timer of their own."""

import asyncio
from collections import OrderedDict
from typing import Protocol


class Looker(Protocol):
    """A connection with a deadline."""

    def look(self) -> None:
        """Act on the deadline if it has come, else set a timer for it."""


class FirstLook:
    """Looks at each connection once, some seconds after it was made, if it is still open.

    Before that look, a connection needs no timer of its own if its deadline is later.

    :arg seconds: from a connection's start to the look.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # When each look is due, on the loop's clock; the next one is first. To find its first item,
        # a plain dict would step over all removed items, each time.
        self._due: OrderedDict[Looker, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Looker) -> float:
        """Add a connection; return when the look comes, on the loop's clock."""
        loop = asyncio.get_running_loop()
        due = self._due[connection] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._look)
        return due

    def discard(self, connection: Looker) -> None:
        """Forget a connection, if it is not forgotten already."""
        self._due.pop(connection, None)

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        while self._due:
            connection, due = next(iter(self._due.items()))
            if due - loop.time() > 0.001:
                self._timer = loop.call_at(due, self._look)
                return
            del self._due[connection]
            connection.look()
