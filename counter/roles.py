"""What the counter asks of its users, and its parts of each other."""

from collections.abc import Sequence
from typing import Literal, Protocol

from counter.tokens import Numbers

#: Why a visit got no number: the counter was off, too many visits waited, Redis did not answer
#: within the deadline, Redis answered with an error or not at all, the server was stopping.
Reason = Literal["off", "crowded", "timeout", "error", "stopping"]


class Observer(Protocol):
    """Is told what becomes of visits."""

    def counted(self, visits: int, seconds: float) -> None:
        """Take note of visits that one command has counted.

        :arg seconds: from sending the command to its reply.
        """

    def uncounted(self, visits: int, reason: Reason) -> None:
        """Take note of visits that get no number."""


class Asker(Protocol):
    """Whoever asks for numbers."""

    @property
    def are_waiting(self) -> bool:
        """Whether visits wait for their number."""

    def take(self) -> tuple[int, float]:
        """Return how many numbers the next request asks for, none with 0, and its deadline."""

    def counted(self, numbers: Sequence[Numbers], seconds: float, exactly_once: bool) -> None:
        """Take the numbers of a request, and the seconds that it took."""

    def uncounted(self, reason: Literal["timeout", "error", "stopping"]) -> None:
        """Hear that nobody who waits gets a number."""


class Beside(Protocol):
    """What is sent beside the visits, for others to see; the counter does not know its meaning."""

    def commands(self, key: str, shown: int, visits: int, scripts: bool) -> Sequence[bytes]:
        """Return commands, as `packed` makes them, that go after a request; mostly none.

        :arg key: of the process's record in Redis, a hash.
        :arg shown: visits that the process had shown before.
        :arg visits: how many the request asks for.
        :arg scripts: whether Redis runs scripts, as far as is known.
        """

    def refused(self, why: str) -> None:
        """Hear of an error that one of them got: its first word, a colon, the error's text."""

    def was_away(self, start: float, end: float, reason: str) -> None:
        """Hear that the process was without Redis; in seconds of the monotonic clock."""
