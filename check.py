"""Drives a deployment of friendlyhello and audits its visit numbers.

``python check.py http://localhost:4000`` visits the page many times and tells which replicas
answered, how fast, and whether any visit was counted twice or lost. It knows the deployment
by its URL alone.
"""

import argparse
import asyncio
import contextlib
import io
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from tqdm import tqdm

from audit.answer import NotFriendlyhello, Redirected
from audit.client import RanOut, Target, header, place, tls_context
from audit.load import Load
from audit.plot import draw
from audit.report import Judgement, Report

EPILOG = """exit status:
  0  every visit was answered and no number was shown twice
     (with --exclusive: and none is missing)
  1  the audit failed; the report says where
  2  a bad argument, or what answers is not friendlyhello, or this machine
     has run out of connections, or of room for the report
"""

Value = TypeVar("Value")

DEFAULT_REQUESTS = 1000

#: What macOS allows where it says that it allows any number (setrlimit(2) there, OPEN_MAX).
MACOS_MOST = 10_240

#: Seconds between two looks at the progress.
PROGRESS_EVERY = 0.1


def main() -> None:
    """Run the program."""
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.duration:
        arguments.requests = arguments.requests or DEFAULT_REQUESTS
    _check_together(arguments, parser)
    try:
        target = _target(arguments)
    except ValueError as error:
        parser.error(str(error))
    load = Load(
        target,
        requests=arguments.requests,
        duration=arguments.duration,
        concurrency=arguments.concurrency,
        rate=arguments.rate,
        timeout=arguments.timeout,
        keep_alive=arguments.keep_alive,
    )
    if arguments.plot is not None:
        try:  # before the load, not after it
            Path(arguments.plot).open("a").close()
        except OSError as error:
            parser.error(f"--plot {arguments.plot}: {error.strerror}")
    _raise_descriptors()
    _run(load, arguments, parser)

    judgement = Judgement(arguments.exclusive, arguments.max_failures)
    report = Report(load.visits, load.now, judgement, arguments.rate)
    parser.print(json.dumps(report.as_json()) if arguments.json else report.as_text())
    if arguments.plot is not None:
        try:
            Path(arguments.plot).write_text(draw(load.visits, load.now), encoding="utf-8")
        except OSError as error:
            parser.error(f"--plot {arguments.plot}: {error.strerror}")
    sys.exit(1 if report.problems else 0)


def _run(load: Load, arguments: argparse.Namespace, parser: "_Parser") -> None:
    """Run the load, or end with a line that says why there is nothing to report."""
    try:
        asyncio.run(_drive(load, arguments))
    except Redirected as error:
        parser.error(f"{arguments.url} answers with a redirect to {error.target}; audit that")
    except NotFriendlyhello as error:
        parser.error(f"{arguments.url} does not answer as friendlyhello does: {error}")
    except RanOut as error:
        parser.error(str(error))
    except KeyboardInterrupt:  # the second one, while visits under way were waited for
        parser.exit(130, "check.py: interrupted, no report\n")


def _check_together(arguments: argparse.Namespace, parser: "_Parser") -> None:
    """Refuse what contradicts itself, or would not be heeded."""
    given = [
        name
        for name in ("cacert", "insecure", "cert", "key")
        if getattr(arguments, name) not in (None, False)
    ]
    if given and not arguments.url.lower().startswith("https:"):
        parser.error(f"--{given[0]} is allowed with an https:// URL")
    if arguments.key is not None and arguments.cert is None:
        parser.error("--key is allowed with --cert")
    if [name.lower() for name, _ in arguments.header].count("host") > 1:
        parser.error("--header Host is allowed once")


def _target(arguments: argparse.Namespace) -> Target:
    tls = tls_context(arguments.cacert, arguments.insecure, arguments.cert, arguments.key)
    return Target(arguments.url, headers=arguments.header, connect=arguments.connect, tls=tls)


def _raise_descriptors() -> None:
    """Raise the soft limit of descriptors to the hard one (getrlimit(2)), or as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, MACOS_MOST):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return


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

    def error(self, message: str) -> NoReturn:
        line = message.encode("unicode_escape").decode()
        self.exit(2, f"{self.prog}: {line}\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End with a message on standard error, if that takes it."""
        _write(sys.stderr, message or "")
        sys.exit(status)

    def print_help(self, file: object = None) -> None:
        """Print the help, as a report is printed."""
        self.print(self.format_help())

    def print(self, text: str) -> None:
        """Print what was asked for; end when it cannot be written, unless its reader has left."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # bars and dashes, where it is not UTF-8
        error = _write(sys.stdout, text.removesuffix("\n") + "\n")
        if error and not isinstance(error, BrokenPipeError):
            self.error(f"standard output: {error.strerror}")


def _write(stream: TextIO | None, text: str) -> OSError | None:
    """Write a text, and return why that cannot be."""
    if stream is None:
        return None
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # What is left in its buffer would be tried again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _parser() -> _Parser:
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
    add(
        *("--rate",),
        type=_seconds,
        metavar="N",
        help="visits to make in a second, evenly; the latency of one that has to wait for a free "
        "connection counts from when it was due",
    )
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
    add(
        *("--header",),
        type=_checked(header),
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="send this header, in place of what is sent by default; may be given again",
    )
    add(
        *("--connect",),
        type=_checked(place, "allowed is HOST:PORT, IPv6 in brackets, the port from 1 to 65535"),
        metavar="HOST:PORT",
        help="connect to this place instead; the URL's host is still the one that is named",
    )
    trust = parser.add_mutually_exclusive_group().add_argument
    trust("--cacert", metavar="FILE", help="PEM file of the CAs to trust, not the system's")
    trust("--insecure", action="store_true", help="take any certificate")
    add("--cert", metavar="FILE", help="PEM file of a certificate to show to the server")
    add("--key", metavar="FILE", help="PEM file of its key, if it is not in the first")
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


def _checked(read: Callable[[str], Value], allowed: str | None = None) -> Callable[[str], Value]:
    def check(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            told = f"{text!r}: {allowed}" if allowed else str(error)
            raise argparse.ArgumentTypeError(told) from None

    return check


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: allowed is a number above 0, up to 86,400")


if __name__ == "__main__":
    logging.getLogger("tornado").setLevel(logging.CRITICAL)  # the report tells of failures
    main()
