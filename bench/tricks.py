"""What each trick of `docs/design.md` is worth: ``python -m bench.tricks [--write]``.

This turns each trick off in turn, in a process of its own, and measures a page with and without the
trick, as `bench.page` does. It counts instructions, or measures time where nothing can count them.
It measures a logged page by time, because the thread that writes the log goes by the clock.
"""

import argparse
import sys
from collections.abc import Sequence
from operator import itemgetter

from bench import off
from bench.page import ROOT, Page, instructions, microseconds
from bench.visitors import JSON, KEPT, LOGGED, NEW

#: How many clients ask at once.
CLIENTS = 64

#: On how many pages to count instructions: enough for several collections of garbage.
NUMBER = 1280

#: For measuring time: how many times, and for how many seconds each time.
ROUNDS, SECONDS = 8, 0.5

DESIGN = ROOT / "docs/design.md"
BEGIN = '<!-- `python -m bench.tricks --write` writes the column "worth", and sorts the rows -->\n'
END = "<!-- to here -->\n"

#: The page of which a trick saves a share, by its kind.
OF = {
    KEPT: "a page",
    NEW: "a page on a new connection",
    LOGGED: "a logged page",
    JSON: "a page logged as JSON",
}

#: The page to measure without each trick, by the trick's name.
WITHOUT = {name: Page(kind, CLIENTS, name) for name, (kind, _) in off.TRICKS.items()}


def measured() -> dict[str, float]:
    """Return how much more a page costs without each trick, as a share of the page with it."""
    pages = [*(Page(kind, CLIENTS) for kind in OF), *WITHOUT.values()]
    steady = [page for page in pages if page.kind not in (LOGGED, JSON)]
    counts = instructions(steady, NUMBER)
    cost = dict(zip(steady, counts, strict=True)) if counts else {}
    cost |= _times([page for page in pages if page not in cost])
    return {
        name: cost[page] / cost[page._replace(without="")] - 1 for name, page in WITHOUT.items()
    }


def _times(pages: Sequence[Page]) -> dict[Page, float]:
    rounds = [[microseconds(page, SECONDS) for page in pages] for _ in range(ROUNDS)]
    return dict(zip(pages, map(min, zip(*rounds, strict=True)), strict=True))


def table(written: str, worth: dict[str, float]) -> str:
    """Return the table of the docs with new figures, the most valuable trick first.

    :arg written: the table with the figures of earlier.
    """
    head, rule, *rows = written.splitlines()
    percent = {name: round(100 * share) for name, share in worth.items()}
    found = []
    for row in rows:
        *said, _, where, name = row.strip("| ").split(" | ")
        share = percent[name.strip("`")]
        cells = (*said, f"{share} % of {OF[WITHOUT[name.strip('`')].kind]}", where, name)
        found.append((-share, f"| {' | '.join(cells)} |"))
    return "\n".join([head, rule, *(row for _, row in sorted(found, key=itemgetter(0))), ""])


def main() -> None:
    """Print the table, or write it into the docs."""
    parser = argparse.ArgumentParser(prog="python -m bench.tricks", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into docs/design.md")
    options = parser.parse_args()
    text = DESIGN.read_text()
    _, _, rest = text.partition(BEGIN)
    written, _, _ = rest.partition(END)
    found = table(written, measured())
    if options.write:
        DESIGN.write_text(text.replace(written, found))
    else:
        sys.stdout.write(found)


if __name__ == "__main__":
    main()
