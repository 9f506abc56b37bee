"""Commands that are alike but for one word."""

from counter import packed

#: Stands where the word is to be.
OPEN = "?"


class Form:
    """A command with a place that is open, made once.

    `counter.packed` takes longer, and keeps what it has made: a thousand signs are a megabyte.

    :arg command: its words, the first `OPEN` among them being the place.
    """

    def __init__(self, *command: str | int) -> None:
        self._before, self._behind = packed(*command).split(packed(OPEN).partition(b"\r\n")[2], 1)

    def filled(self, word: str) -> bytes:
        """Return the command with a word in the place."""
        text = word.encode()
        return b"%b$%d\r\n%b\r\n%b" % (self._before, len(text), text, self._behind)
