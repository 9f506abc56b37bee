"""Waits, durations and sizes, as flags, queries and ``PUT /faults`` write them."""

import re
from typing import NamedTuple

#: How long an answer may wait: up to 10 seconds.
_WAIT = re.compile(r"(?P<ms>[0-9]{1,4}|10000)ms|(?P<s>[0-9](\.[0-9]{1,3})?|10)s")


def milliseconds(text: str) -> int:
    """Return the milliseconds of a wait.

    :raises ValueError: when the text is no wait. The message says what is allowed.
    """
    match = _WAIT.fullmatch(text)
    if match is None:
        raise ValueError("up to 10s, such as 250ms or 1.5s")
    return int(match["ms"]) if match["ms"] else round(1000 * float(match["s"]))


class Wait(NamedTuple):
    """A range of milliseconds. Each answer waits for a time that is drawn evenly from it."""

    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, text: str) -> "Wait":
        """Read ``0``, a wait, or a range between two waits.

        :raises ValueError: when the text is none of them. The message says what is allowed.
        """
        try:
            bounds = [milliseconds(one) for one in text.split("-")] if text != "0" else [0]
            if len(bounds) <= 2 and bounds[0] <= bounds[-1]:
                return cls(bounds[0], bounds[-1])
        except ValueError:
            pass
        raise ValueError("0, a time up to 10s such as 200ms or 1.5s, or a range such as 100ms-2s")

    def __str__(self) -> str:
        """Return a text that `of` reads as this range."""
        least, most = (f"{ms}ms" if ms % 1000 else f"{ms // 1000}s" for ms in self)
        return "0" if not self.most else least if least == most else f"{least}-{most}"


_DURATION = re.compile(r"(?P<number>[0-9]{1,7}(\.[0-9]{1,3})?)(?P<unit>ms|s|m|)")


def duration(text: str) -> float:
    """Return the seconds of a text such as ``20s``, ``500ms``, ``2m`` or ``20``.

    :raises ValueError: when the text is no duration, or more than an hour. The message says what is
        allowed.
    """
    if match := _DURATION.fullmatch(text):
        seconds = float(match["number"]) * {"ms": 0.001, "s": 1, "m": 60, "": 1}[match["unit"]]
        if seconds <= 3600:
            return seconds
    raise ValueError("a time up to an hour, such as 500ms, 20s or 2m")


_SIZE = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>Ki|Mi|Gi)B")

#: The largest size: 64 GiB.
MOST_BYTES = 64 * 1024**3


def size(text: str) -> int:
    """Return the bytes of a text such as ``0``, ``512KiB``, ``64MiB`` or ``1GiB``.

    :raises ValueError: when the text is no size, or more than 64 GiB. The message says what is
        allowed.
    """
    if text == "0":
        return 0
    if match := _SIZE.fullmatch(text):
        found = int(match["number"]) << 10 * (1 + ("Ki", "Mi", "Gi").index(match["unit"]))
        if found <= MOST_BYTES:
            return found
    raise ValueError("0, or a size up to 64GiB, such as 512KiB, 64MiB or 1GiB")


def size_text(number: int) -> str:
    """Return a text that `size` reads as this number of bytes."""
    if not number:
        return "0"
    power = min(3, ((number & -number).bit_length() - 1) // 10)
    return f"{number // 1024**power}{('Ki', 'Mi', 'Gi')[power - 1]}B"
