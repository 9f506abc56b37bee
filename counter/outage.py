"""An outage: visits are not counted. Since when, and why."""

import logging
import time

#: How many different reasons the log has of one outage, one line each. There are two probes a
#: second, and some reasons name an address or a port that changes each time.
MAX_REASONS = 8

log = logging.getLogger("friendlyhello.visits")


class Outage:
    """A time in which visits are not counted.

    :arg reason: why it began, without secrets.
    """

    def __init__(self, reason: str) -> None:
        self.start = time.monotonic()
        """When it began, in seconds of the monotonic clock."""
        self.first_reason = self.reason = reason
        """Why it began; ``reason`` is why it goes on."""
        self._said: set[str] = set()

    def say(self, reason: str) -> None:
        """Note why the outage goes on, and log the reason if it is new."""
        self.reason = reason
        if reason not in self._said and len(self._said) < MAX_REASONS:
            log.warning("counter %s: %s", "still off" if self._said else "off", reason)
            self._said.add(reason)
