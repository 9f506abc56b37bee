"""A connection's one timer, for a deadline that moves far more often than it comes."""

import asyncio
import math

from http1.first_look import FirstLook


class Deadline:
    """Has a deadline, and calls `on_deadline` when it comes.

    Connections inherit from it. A separate object and its connection would refer to each other, so
    both would stay in memory until the garbage collector runs.

    :arg first_look: calls `look` once, some seconds from now; before that, no timer is needed.
    """

    def __init__(self, first_look: FirstLook) -> None:
        self.loop = asyncio.get_running_loop()
        self._first_look = first_look
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf  # when `look` is called next, by the timer or the first look
        self.deadline = 0.0
        """When the deadline comes, on the loop's clock; 0 for never."""

    def on_deadline(self) -> None:
        """Act on the deadline. Subclasses define this."""
        raise NotImplementedError

    def begin_looking(self) -> None:
        """Ask for the first look."""
        self._look_at = self._first_look.add(self)

    def set_deadline(self, seconds: float | None) -> None:
        """Set the deadline.

        :arg seconds: from now; None or 0 for no deadline.
        """
        if not seconds:
            self.deadline = 0.0
            return
        self.deadline = self.loop.time() + seconds
        if self.deadline < self._look_at:
            self.stop_looking()
            self._look_at = self.deadline
            self._timer = self.loop.call_at(self.deadline, self.look)

    def look(self) -> None:
        """Call `on_deadline` if the deadline has come, else set a timer for it."""
        self._timer, self._look_at = None, math.inf
        if not self.deadline:
            return
        if self.deadline - self.loop.time() > 0.001:
            self._look_at = self.deadline
            self._timer = self.loop.call_at(self.deadline, self.look)
        else:
            self.on_deadline()

    def stop_looking(self) -> None:
        """End the timer and the first look, so that neither keeps the connection in memory."""
        self._first_look.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
