"""What a page shows of a terminal: commands, and what each prints."""

from collections.abc import Iterator
from typing import NamedTuple

from tests.docs.test_docs import tokens


class Shown(NamedTuple):
    """A command as a page shows it."""

    section: str
    """The heading that it stands below."""
    command: str
    """Without the prompt; of several lines where one ends with a backslash."""
    output: str
    """What the page shows of the output; "" for nothing."""


def blocks(page: str) -> Iterator[list[Shown]]:
    """Yield the commands of each console block of a page."""
    every, section = tokens(page), ""
    for at, token in enumerate(every):
        if token.type == "heading_open" and not token.level:  # not one in a quotation
            section = every[at + 1].content
        elif token.type == "fence" and token.info == "console":
            yield [*_commands(section, token.content)]


def _commands(section: str, block: str) -> Iterator[Shown]:
    for part in f"\n{block}".split("\n$ ")[1:]:
        lines = part.splitlines()
        length = 1
        while lines[length - 1].endswith("\\"):
            length += 1
        yield Shown(section, "\n".join(lines[:length]), "\n".join(lines[length:]))
