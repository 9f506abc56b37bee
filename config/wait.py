"""How long an answer is made to wait, as flags, queries and ``PUT /faults`` say it."""

import re
from typing import NamedTuple

#: How long an answer can be made to wait: up to 10 seconds.
_WAIT = re.compile(r"(?P<ms>[0-9]{1,4}|10000)ms|(?P<s>[0-9](\.[0-9]{1,3})?|10)s")


def milliseconds(text: str) -> int:
    """Return how long a wait is.

    :raises ValueError: when the text says none; says what is allowed.
    """
    match = _WAIT.fullmatch(text)
    if match is None:
        raise ValueError("up to 10s, as in 250ms or 1.5s")
    return int(match["ms"]) if match["ms"] else round(1000 * float(match["s"]))


class Wait(NamedTuple):
    """How long an answer waits, drawn evenly from a range of milliseconds."""

    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, text: str) -> "Wait":
        """Read ``0``, a wait, or a range of two.

        :raises ValueError: when the text is none of them; says what is allowed.
        """
        try:
            bounds = [milliseconds(one) for one in text.split("-")] if text != "0" else [0]
            if len(bounds) <= 2 and bounds[0] <= bounds[-1]:
                return cls(bounds[0], bounds[-1])
        except ValueError:
            pass
        raise ValueError("0, a time up to 10s as in 200ms or 1.5s, or a range as in 100ms-2s")

    def __str__(self) -> str:
        """Return it as `of` reads it."""
        least, most = (f"{ms}ms" if ms % 1000 else f"{ms // 1000}s" for ms in self)
        return "0" if not self.most else least if least == most else f"{least}-{most}"
