"""A spell without Redis: since when, and why."""

import logging
import time

#: Reasons that are logged, one line each. A probe finds one twice a second, and some name an
#: address or a port that changes.
MAX_REASONS = 8

log = logging.getLogger("friendlyhello.visits")


class Spell:
    """A time in which visits are not counted.

    :arg reason: why it began, without secrets.
    """

    def __init__(self, reason: str) -> None:
        self.start = time.monotonic()
        """When it began, in seconds of the monotonic clock."""
        self.first_reason = self.reason = reason
        """Why it began, and why it goes on."""
        self._said: set[str] = set()

    def say(self, reason: str) -> None:
        """Go on, for a reason that is logged when it is a new one."""
        self.reason = reason
        if reason not in self._said and len(self._said) < MAX_REASONS:
            log.warning("counter %s: %s", "still off" if self._said else "off", reason)
            self._said.add(reason)
