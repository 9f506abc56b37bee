"""Messages of one line, whatever is in them."""

import encodings.unicode_escape  # noqa: F401  now: without descriptors it is not found
import sys
from typing import NoReturn

from process.standard_error import take_standard_error


def one_line(text: str) -> str:
    """Return a text with every character escaped that could end its line or move the cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fail(status: int, error: object) -> NoReturn:
    """End the program with one line that says why.

    :arg status: its exit status.
    """
    writing = take_standard_error()
    print(one_line(f"server.py: {error}"), file=sys.stderr)
    if writing:
        writing.finish()
    sys.exit(status)
