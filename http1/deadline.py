"""The one timer of a connection, for a deadline that is moved far more often than it comes."""

import asyncio
import math

from http1.first_look import FirstLook


class Deadline:
    """Has a deadline, at which `on_deadline` is called.

    It is inherited: an object of its own would have to know whose it is, and the two would keep
    each other until the garbage collector came.

    :arg first_look: looks once, some seconds from now; until then no timer is needed.
    """

    def __init__(self, first_look: FirstLook) -> None:
        self.loop = asyncio.get_running_loop()
        self._first_look = first_look
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf  # that it ends at, or that the first look comes at
        self.deadline = 0.0
        """When it comes, on the loop's clock; 0 for never."""

    def on_deadline(self) -> None:
        """Do what is due."""
        raise NotImplementedError

    def begin_looking(self) -> None:
        """Look at it from now on."""
        self._look_at = self._first_look.add(self)

    def set_deadline(self, seconds: float | None) -> None:
        """Set when it comes; None or 0 for never."""
        if not seconds:
            self.deadline = 0.0
            return
        self.deadline = self.loop.time() + seconds
        if self.deadline < self._look_at:
            self.stop_looking()
            self._look_at = self.deadline
            self._timer = self.loop.call_at(self.deadline, self.look)

    def look(self) -> None:
        """See whether it has come; else set a timer for it."""
        self._timer, self._look_at = None, math.inf
        if not self.deadline:
            return
        if self.deadline - self.loop.time() > 0.001:
            self._look_at = self.deadline
            self._timer = self.loop.call_at(self.deadline, self.look)
        else:
            self.on_deadline()

    def stop_looking(self) -> None:
        """Look at it no more, nor be kept for that."""
        self._first_look.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
