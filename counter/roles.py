"""Protocols: what the counter needs from its users, and what its parts need from each other."""

from collections.abc import Sequence
from typing import Literal, Protocol

from counter.tokens import Numbers

#: Why a visit got no number: the counter was off, too many visits waited, Redis did not answer
#: within the deadline, Redis answered with an error or not at all, or the server was stopping.
Reason = Literal["off", "crowded", "timeout", "error", "stopping"]


class Observer(Protocol):
    """Hears which visits get a number."""

    def counted(self, visits: int, seconds: float) -> None:
        """Take note of visits that one command has counted.

        :arg seconds: from sending the command to its reply.
        """

    def uncounted(self, visits: int, reason: Reason) -> None:
        """Take note of visits that get no number."""


class Asker(Protocol):
    """Asks for numbers."""

    @property
    def are_waiting(self) -> bool:
        """Whether visits wait for their number."""

    def take(self) -> tuple[int, float]:
        """Begin the next batch.

        :return: how many visits it has (0 when none waits), and their deadline, in seconds of the
            loop's clock.
        """

    def counted(self, numbers: Sequence[Numbers], seconds: float, exactly_once: bool) -> None:
        """Take the numbers of a request.

        :arg seconds: from sending the request to its reply.
        :arg exactly_once: whether a number that is not shown can be given back.
        """

    def uncounted(self, reason: Literal["timeout", "error", "stopping"]) -> None:
        """Hear that the waiting visits get no number."""


class Beside(Protocol):
    """Commands that go beside the visits. The counter does not know their meaning."""

    def commands(self, key: str, shown: int, visits: int, scripts: bool) -> Sequence[bytes]:
        """Return the commands to send after a request, as `packed` makes them; usually none.

        :arg key: of the process's record in Redis, a hash.
        :arg shown: how many numbers the process has shown so far.
        :arg visits: how many numbers the request asks for.
        :arg scripts: whether Redis runs scripts, as far as is known.
        """

    def refused(self, why: str) -> None:
        """Hear that Redis refused one of the commands.

        :arg why: the command's first word, a colon, and the text of the error.
        """

    def was_away(self, start: float, end: float, reason: str) -> None:
        """Hear that the process was without Redis, and now has Redis again.

        :arg start: when Redis went, in seconds of the monotonic clock.
        :arg end: when Redis was back, in seconds of the same clock.
        :arg reason: why visits were not counted at first.
        """
