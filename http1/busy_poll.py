"""Keeps the event loop awake for a moment after an answer, if the client asks again and again."""

import asyncio
import math
import time

#: Seconds after an answer in which the loop does not sleep, but waits for the next request.
BUSY_POLL = 100e-6


class BusyPoll:
    """Keeps the event loop turning after an answer, while it expects the next request at once.

    To wake takes longer than a client nearby takes to ask again. The loop expects a request if the
    client's last request came that fast, and if nobody else got an answer since.
    """

    def __init__(self) -> None:
        self.last: object = None
        """The client that got the last answer; call `asked` and `answered` for it alone."""
        self._answered_at = -math.inf  # when the client got it, unless the client has asked since
        self._is_near = False  # the client's last request came soon after an answer

    def forget(self, client: object) -> None:
        """Forget a client that has gone."""
        if self.last is client:
            self.last = None

    def asked(self) -> None:
        """Note that the last client has sent something."""
        self._is_near = time.perf_counter() - self._answered_at < BUSY_POLL
        self._answered_at = -math.inf

    def answered(self) -> None:
        """Note that the last client got another answer; if it is near, wait awake for a request."""
        self._answered_at = time.perf_counter()
        if self._is_near:
            self._turn(self._answered_at)

    def _turn(self, answered_at: float) -> None:
        is_waiting = self._answered_at == answered_at
        if is_waiting and time.perf_counter() - answered_at < BUSY_POLL:
            asyncio.get_running_loop().call_soon(self._turn, answered_at)
