"""The audit's options, their allowed values, and the errors for bad ones."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO, TypeVar

from audit.client import header, place
from audit.report import Most

EPILOG = """exit status:
  0  every visit was answered, at least one was counted, and no number was
     shown twice (with --exclusive: and none is missing)
  1  the audit failed, and the report says why; or the time of --wait was
     over, and a line says what was missing
  2  an argument is bad, or the server at the URL is not friendlyhello, or
     this machine ran out of descriptors, ports or disk
"""

Value = TypeVar("Value")

#: ``argparse.ArgumentParser.add_argument``.
Add = Callable[..., argparse.Action]

DEFAULT_REQUESTS = 1000


class Parser(argparse.ArgumentParser):
    """argparse's parser, but an error is one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and the message."""
        line = message.encode("unicode_escape").decode()
        self.exit(2, f"{self.prog}: {line}\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit, with a message on standard error if that takes it."""
        write(sys.stderr, message or "")
        sys.exit(status)

    def print_help(self, file: object = None) -> None:
        """Print the help in the same way as a report."""
        self.print(self.format_help())

    def print(self, text: str) -> None:
        """Print a text. Exit if standard output fails, but not if its reader has gone."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # the report's bars and dashes need UTF-8
        error = write(sys.stdout, text.removesuffix("\n") + "\n")
        if error and not isinstance(error, BrokenPipeError):
            self.error(f"standard output: {error.strerror}")


def write(stream: TextIO | None, text: str) -> OSError | None:
    """Write a text; return the error if that fails, else None."""
    if stream is None:
        return None
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # Python writes the rest of the buffer again at the exit, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def new_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="check.py",
        description="Visit a deployment of friendlyhello and audit its visit numbers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_load(parser.add_argument)
    _add_verdict(parser.add_argument)
    _add_wait(parser.add_argument)
    _add_way(parser)
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument(
        "--plot", metavar="FILE.svg", help="draw visits per second and latency over time"
    )
    return parser


def _add_load(add: Add) -> None:
    """Add what to visit, and how."""
    add("url", metavar="URL", help="the page, such as http://localhost:4000")
    add(
        "--requests",
        type=_whole(1, 10**8),
        metavar="N",
        help=f"visits to make (default {DEFAULT_REQUESTS:,} without --duration)",
    )
    add("--duration", type=_seconds, metavar="S", help="begin visits for S seconds")
    add(
        "--concurrency",
        type=_whole(1, 10_000),
        metavar="N",
        default=16,
        help="how many visits are under way at the same time (default %(default)s)",
    )
    add(
        "--rate",
        type=_seconds,
        metavar="N",
        help="make N visits a second, evenly; the latency counts from the time when a visit is "
        "due, so it includes the wait for a free connection",
    )
    add(
        "--timeout",
        type=_seconds,
        metavar="S",
        default=10.0,
        help="a visit fails after S seconds (default %(default)g)",
    )
    add(
        "--keep-alive",
        action="store_true",
        help="reuse connections; by default each visit opens its own, because a balancer chooses "
        "a replica for each connection",
    )


def _add_verdict(add: Add) -> None:
    """Add when the audit fails."""
    add(
        "--exclusive",
        action="store_true",
        help="use it when nobody else visits: then a missing number was never shown, and the audit "
        "fails",
    )
    add(
        "--max-failures",
        type=_whole(0, 10**8),
        metavar="N",
        default=0,
        help="how many visits may fail (default %(default)s)",
    )
    add(
        "--max-uncounted",
        type=_checked(Most.of),
        metavar="N|N%",
        help="how many visits, or which share of them, may get no number (default: all but one)",
    )


def _add_wait(add: Add) -> None:
    """Add what to wait for before the audit."""
    add(
        "--wait",
        type=_seconds,
        metavar="S",
        help="first wait, for up to S seconds, until Redis is up and the replicas answer; the "
        "visits of this time count, but are not in the report",
    )
    add(
        "--replicas",
        type=_whole(1, 10_000),
        metavar="N",
        default=1,
        help="with --wait: how many replicas must answer with a number (default %(default)s)",
    )


def _add_way(parser: argparse.ArgumentParser) -> None:
    """Add how to reach the deployment."""
    add = parser.add_argument
    add(
        "--header",
        type=_checked(header),
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="send this header, in place of the default; may be given more than once",
    )
    add(
        "--connect",
        type=_checked(place, "allowed is HOST:PORT, IPv6 in brackets, the port from 1 to 65535"),
        metavar="HOST:PORT",
        help="connect to this place, but send the host of the URL",
    )
    trust = parser.add_mutually_exclusive_group().add_argument
    trust("--cacert", metavar="FILE", help="PEM file of the CAs to trust, in place of the system's")
    trust("--insecure", action="store_true", help="accept any certificate")
    add("--cert", metavar="FILE", help="PEM file of a certificate to show to the server")
    add("--key", metavar="FILE", help="PEM file of the key, if --cert does not have it")


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
