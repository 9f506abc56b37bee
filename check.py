"""Drives a deployment of friendlyhello and audits its visit numbers.

``python check.py http://localhost:4000`` visits the page many times and tells which replicas
answered, how fast, and whether any visit was counted twice or lost. It knows the deployment
by its URL alone.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

from audit.load import Load, NotFriendlyhello
from audit.plot import draw
from audit.report import Judgement, Report

EPILOG = """exit status:
  0  every visit was answered and no number was shown twice
     (with --exclusive: and none is missing)
  1  the audit failed; the report says where
  2  a bad argument, or what answers is not friendlyhello
"""

DEFAULT_REQUESTS = 1000

#: Seconds between two looks at the progress.
PROGRESS_EVERY = 0.1


def main() -> None:
    """Run the program."""
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.duration:
        arguments.requests = arguments.requests or DEFAULT_REQUESTS
    try:
        load = Load(
            arguments.url,
            requests=arguments.requests,
            duration=arguments.duration,
            concurrency=arguments.concurrency,
            rate=arguments.rate,
            timeout=arguments.timeout,
            keep_alive=arguments.keep_alive,
        )
    except ValueError:
        parser.error(f"{arguments.url}: not a URL such as http://localhost:4000")
    if arguments.plot:
        try:  # before the load, not after it
            Path(arguments.plot).open("a").close()
        except OSError as error:
            parser.error(f"--plot {arguments.plot}: {error.strerror}")

    try:
        asyncio.run(_drive(load, arguments))
    except NotFriendlyhello as error:
        parser.error(f"{arguments.url} does not answer as friendlyhello does: {error}")
    except KeyboardInterrupt:  # the second one, while visits under way were waited for
        parser.exit(130, "check.py: interrupted, no report\n")

    report = Report(load.visits, load.now, Judgement(arguments.exclusive, arguments.max_failures))
    text = json.dumps(report.as_json()) if arguments.json else report.as_text()
    status, message = int(bool(report.problems)), ""
    if arguments.plot:
        try:
            Path(arguments.plot).write_text(draw(load.visits, load.now), encoding="utf-8")
        except OSError as error:
            status, message = status or 2, _line(f"--plot {arguments.plot}: {error.strerror}")
    _end(status, message, text + "\n")


async def _drive(load: Load, arguments: argparse.Namespace) -> None:
    """Run the load until it is done, or until Ctrl-C, and show how far it is."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        load.stop()
        loop.remove_signal_handler(signal.SIGINT)  # the next one ends the program

    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGTERM, load.stop)
    running = asyncio.create_task(load.run())
    with tqdm(
        total=arguments.duration or arguments.requests,
        disable=None,  # where nobody looks
        bar_format="{percentage:3.0f}% |{bar:30}| {elapsed}{postfix}",
    ) as bar:
        seen, seen_at, failed = 0, 0.0, 0
        while not running.done():
            await asyncio.wait([running], timeout=PROGRESS_EVERY)
            made, now = len(load.visits), load.now
            failed += sum(visit.failure is not None for visit in load.visits[seen:made])
            rate = (made - seen) / max(now - seen_at, 0.001)
            seen, seen_at = made, now
            bar.n = min(now if arguments.duration else made, bar.total)
            bar.set_postfix_str(f"{made:,} visits, {rate:,.0f}/s, {failed:,} failed")
    await running


class _Parser(argparse.ArgumentParser):
    """argparse's parser, its errors without the usage: one line."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End, when what was printed is written."""
        _end(status, message or "")

    def error(self, message: str) -> NoReturn:
        self.exit(2, _line(message))


def _line(message: str) -> str:
    return f"check.py: {message.encode('unicode_escape').decode()}\n"


def _end(status: int, message: str, report: str = "") -> NoReturn:
    """End the program when all is written. A reader that has left, as ``head`` does, has enough."""
    error = _write(sys.stdout, report)
    if error and not isinstance(error, BrokenPipeError):
        status = status or 2
        message += _line(f"cannot write to standard output: {error.strerror}")
    _write(sys.stderr, message)
    sys.exit(status)


def _write(stream: TextIO | None, text: str) -> OSError | None:
    """Write a text and what was written before; return why that cannot be."""
    if stream is None:
        return None
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # Python would write what is left as it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="check.py",
        description="Visit a deployment of friendlyhello and audit its visit numbers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("url", metavar="URL", help="the page, such as http://localhost:4000")
    add(
        "--requests",
        type=_whole(1, 10**8),
        metavar="N",
        help=f"visits to make (default {DEFAULT_REQUESTS:,} without --duration)",
    )
    add("--duration", type=_seconds, metavar="S", help="seconds to go on for")
    add(
        *("--concurrency",),
        type=_whole(1, 10_000),
        metavar="N",
        default=16,
        help="visits under way at once (default 16)",
    )
    add("--rate", type=_seconds, metavar="N", help="visits to begin in a second, at most")
    add(
        *("--timeout",),
        type=_seconds,
        metavar="S",
        default=10.0,
        help="seconds after which a visit has failed (default 10)",
    )
    add(
        *("--keep-alive",),
        action="store_true",
        help="reuse connections; by default each visit opens its own, as balancers choose "
        "a replica per connection",
    )
    add(
        *("--exclusive",),
        action="store_true",
        help="nobody else is visiting: a missing number is a visit that was counted and never "
        "shown",
    )
    add(
        *("--max-failures",),
        type=_whole(0, 10**8),
        metavar="N",
        default=0,
        help="visits that may fail (default 0)",
    )
    add("--json", action="store_true", help="print the report as one JSON object")
    add("--plot", metavar="FILE.svg", help="draw visits per second and latency over time")
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        with contextlib.suppress(ValueError):
            if text.isdecimal() and least <= int(text) <= most:
                return int(text)
        raise argparse.ArgumentTypeError(
            f"{text!r}: allowed is a whole number from {least} to {most:,}"
        )

    return check


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: allowed is a number above 0, up to 86,400")


if __name__ == "__main__":
    main()
