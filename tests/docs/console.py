"""What a page shows of a terminal: commands, and what each prints."""

import re
from collections.abc import Iterator
from itertools import pairwise
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
    section, command = "", re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.M)
    for before, token in pairwise(tokens(page)):
        if before.type == "heading_open" and not before.level:  # not one in a quotation
            section = token.content
        elif token.type == "fence" and token.info == "console":
            found = command.findall(token.content)
            yield [Shown(section, typed, output.rstrip("\n")) for typed, output in found]
