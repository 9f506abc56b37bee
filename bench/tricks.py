"""What each trick of `docs/design.md` is worth: ``python -m bench.tricks [--write]``.

This turns each trick off in turn, in a process of its own, and measures a page with and without the
trick, as `bench.page` does. It counts instructions, or measures time where nothing can count them.
It measures a logged page by time, because the thread that writes the log goes by the clock.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import off
from bench.page import ROOT, Page, count, instructions, microseconds
from bench.visitors import JSON, KEPT, LOGGED, NEW

#: How many clients ask at once.
CLIENTS = 64

#: On how many pages to count instructions: enough for several collections of garbage.
NUMBER = 1280

#: For measuring time: how many times, and for how many seconds each time.
ROUNDS, SECONDS = 8, 0.5

DESIGN = ROOT / "docs/design.md"
BEGIN, END = "<!-- `python -m bench.tricks --write` writes this -->\n", "<!-- to here -->\n"

#: The page of which a trick saves a share, by its kind.
OF = {
    KEPT: "a page",
    NEW: "a page on a new connection",
    LOGGED: "a logged page",
    JSON: "a page logged as JSON",
}


@dataclass(frozen=True)
class Trick:
    """A trick, for a row of the table."""

    name: str
    skipped: str
    """What is skipped."""
    instead: str
    """What happens instead."""
    where: str
    turn_off: Callable[[], None]
    kind: str = KEPT
    """The kind of page that it makes cheaper."""

    @property
    def page(self) -> Page:
        """The page to measure without the trick."""
        return Page(self.kind, CLIENTS, self.name)


TRICKS = (
    Trick(
        "common headers",
        "checking each header of an answer, and formatting the date",
        "the server writes the headers that all answers share once a second",
        "`RequestHandler.clear` in `http1/tornado_internals.py`",
        off.common_headers,
    ),
    Trick(
        "known heads",
        "parsing a head that came before",
        "the server keeps the last 64 heads, and what it has read in them",
        "`http1/head.py`",
        off.known_heads,
    ),
    Trick(
        "path requests",
        "parsing a query that is not there, and checking the host again",
        "a request that has only a path reuses the known values",
        "`PathRequest` in `http1/tornado_internals.py`",
        off.path_requests,
    ),
    Trick(
        "checked headers",
        "checking each header of a request again",
        "llhttp has checked them, so the server takes them as they are",
        "`CheckedHeaders` in `http1/tornado_internals.py`",
        off.checked_headers,
    ),
    Trick(
        "request id",
        "`uuid4()` for the request ID",
        "random bits, because the ID is no secret",
        "`handlers/base.py`",
        off.request_id,
    ),
    Trick(
        "direct call",
        "looking for a body, path arguments and `prepare`",
        "the server calls the method `get` or `head` directly",
        "`_EagerDelegate` in `http1/web.py`",
        off.direct_call,
    ),
    Trick(
        "less garbage",
        "searching again and again for garbage among the objects of the start",
        "`gc.freeze()`, and fewer collections",
        "`server.py`",
        off.less_garbage,
    ),
    Trick(
        "eager start",
        "a Task for each request",
        "an eager start: the coroutine runs until its first await, at once",
        "`http1/eager.py`",
        off.eager_start,
    ),
    Trick(
        "short init",
        "a handler's `__init__`, which prepares templates",
        "the server sets only the attributes that the page needs",
        "`new_handler` in `http1/tornado_internals.py`",
        off.short_init,
    ),
    Trick(
        "common lines",
        "writing the shared headers into each answer",
        "they are one text, which the server writes once a second",
        "`AnswerHeaders` in `http1/tornado_internals.py`",
        off.common_lines,
    ),
    Trick(
        "missing headers",
        "an exception for each header that is missing",
        "the server looks the header up first",
        "`CheckedHeaders.get` in `http1/tornado_internals.py`",
        off.missing_headers,
    ),
    Trick(
        "whole answer",
        "the checks of `finish` for earlier writes",
        "the server sends a whole answer in one piece",
        "`RequestHandler.finish` in `http1/tornado_internals.py`",
        off.whole_answer,
    ),
    Trick(
        "open at once",
        "a Task for each connection",
        "the server opens it at once, without a Task",
        "`http1/server.py`",
        off.open_at_once,
        NEW,
    ),
    Trick(
        "first look",
        "a timer for each connection that soon ends",
        "one timer looks at each connection some seconds after its start",
        "`http1/first_look.py`",
        off.first_look,
        NEW,
    ),
    Trick(
        "lines of a turn",
        "a write for each log line",
        "the server hands over the lines of one turn of the event loop together",
        "`watch/logs.py`",
        off.lines_of_a_turn,
        LOGGED,
    ),
    Trick(
        "no record",
        "a log record for each request",
        "the text goes straight to the log's handler, unless another handler or filter wants the "
        "record",
        "`watch/logs.py`",
        off.no_record,
        LOGGED,
    ),
    Trick(
        "known time",
        "formatting the time of each line",
        "the server formats the start of the line once a second",
        "`watch/logs.py`",
        off.known_time,
        LOGGED,
    ),
    Trick(
        "known record",
        "asking the system and the stack for each JSON log record",
        "a copy of the fields that all records share",
        "`watch/logs.py`",
        off.known_record,
        JSON,
    ),
)

_BY_NAME = {trick.name: trick for trick in TRICKS}


def turn_off(name: str) -> None:
    """Turn a trick off in this process, for ever.

    :arg name: the trick's name; "" turns nothing off.
    """
    if name:
        _BY_NAME[name].turn_off()


def measured(tricks: Sequence[Trick]) -> dict[str, float]:
    """Return how much more a page costs without each trick, as a share of the page with it."""
    kinds = dict.fromkeys(trick.kind for trick in tricks)
    pages = [*(Page(kind, CLIENTS) for kind in kinds), *(trick.page for trick in tricks)]
    steady = [page for page in pages if page.kind not in (LOGGED, JSON)]
    counts = instructions(steady, "bench.tricks", NUMBER)
    cost = dict(zip(steady, counts, strict=True)) if counts else {}
    cost |= _times([page for page in pages if page not in cost])
    return {
        trick.name: cost[trick.page] / cost[trick.page._replace(without="")] - 1 for trick in tricks
    }


def _times(pages: Sequence[Page]) -> dict[Page, float]:
    rounds = [[microseconds(page, turn_off, SECONDS) for page in pages] for _ in range(ROUNDS)]
    return dict(zip(pages, map(min, zip(*rounds, strict=True)), strict=True))


def table(worth: dict[str, float]) -> str:
    """Return the table of the docs, the most valuable trick first."""
    lines = ["| what is skipped | what happens instead | worth | where |", "|---|---|---|---|"]
    percent = {trick: round(100 * worth[trick.name]) for trick in TRICKS}
    for trick in sorted(TRICKS, key=lambda trick: -percent[trick]):
        share = f"{percent[trick]} % of {OF[trick.kind]}"
        lines.append(f"| {trick.skipped} | {trick.instead} | {share} | {trick.where} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Print the table, or write it into the docs."""
    parser = argparse.ArgumentParser(prog="python -m bench.tricks", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into docs/design.md")
    parser.add_argument("--count", metavar="RUNS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count(options.count, turn_off)
        return
    found = table(measured(TRICKS))
    if not options.write:
        sys.stdout.write(found)
        return
    before, _, rest = DESIGN.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DESIGN.write_text(f"{before}{BEGIN}{found}{END}{after}")


if __name__ == "__main__":
    main()
