"""Messages that are always one line."""

import encodings.unicode_escape  # noqa: F401  now, while a descriptor is free
import sys
from typing import NoReturn

from process.standard_error import take_standard_error


def one_line(text: str) -> str:
    """Return a text, and escape each character that could end the line or move the cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fail(status: int, error: object) -> NoReturn:
    """End the program with one line that says why.

    :arg status: the exit status.
    :arg error: what the line says.
    """
    writing = take_standard_error()
    print(one_line(f"server.py: {error}"), file=sys.stderr)
    if writing:
        writing.finish()
    sys.exit(status)
