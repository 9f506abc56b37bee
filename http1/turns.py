"""Lets requests that clients have sent ahead begin a few at a time."""

import asyncio
from collections import deque
from collections.abc import Callable

#: Requests that begin in one turn of the loop. Each takes memory until it has its answer, and the
#: loop looks at all other connections only after the turn.
AT_ONCE = 32


class Turns:
    """Calls functions in the turns of the loop to come: `AT_ONCE` in each, in their order."""

    def __init__(self) -> None:
        self._begun = 0  # in the next turn
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, begin: Callable[[], None]) -> None:
        """Call a function in the next turn that has room."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._next_turn)
        if self._begun < AT_ONCE:
            self._begun += 1
            loop.call_soon(begin)
        else:
            self._waiting.append(begin)

    def _next_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < AT_ONCE:
            self.add(self._waiting.popleft())
