"""Commands that differ in one word only."""

from counter import packed

#: Stands in place of that word.
OPEN = "?"


class Form:
    """A command with one open word. It is packed once, and filled many times.

    `counter.packed` takes longer, and keeps each result: a thousand signs would take a megabyte.

    :arg command: its words. The first `OPEN` among them is the open word.
    """

    def __init__(self, *command: str | int) -> None:
        self._before, self._behind = packed(*command).split(packed(OPEN).partition(b"\r\n")[2], 1)

    def filled(self, word: str) -> bytes:
        """Return the bytes of the command with this word in place of the open one."""
        text = word.encode()
        return b"%b$%d\r\n%b\r\n%b" % (self._before, len(text), text, self._behind)
