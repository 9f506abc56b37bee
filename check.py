"""Drives a deployment of friendlyhello and audits its visit numbers.

``python check.py http://localhost:4000`` visits the page many times. It reports which replicas
answered, how fast, and whether any number was shown twice or is missing. It knows the deployment
by its URL alone.
"""

import os
import signal


def end_at_once(signum: int, _: object = None) -> None:
    """Exit without a report. Without a handler, process 1 of a container ignores the signal."""
    os._exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end_at_once)  # also while Python imports the modules

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import resource
import sys
from pathlib import Path

from tqdm import tqdm

from audit.answer import NotFriendlyhello, Redirected
from audit.client import RanOut, Target, tls_context
from audit.load import Load
from audit.options import DEFAULT_REQUESTS, Parser, new_parser, write
from audit.plot import draw
from audit.readiness import NotReady, until_ready
from audit.report import Judgement, Report

#: How many descriptors macOS allows when its limit says "any number" (its setrlimit(2): OPEN_MAX).
MACOS_MOST = 10_240

#: Seconds between two looks at the progress.
PROGRESS_EVERY = 0.1

#: Seconds that visits under way have after SIGTERM: its sender will not wait for long.
LAST_VISITS = 1.0


def main() -> None:
    """Run the program."""
    parser = new_parser()
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
        try:  # a bad path ends the audit before the load
            Path(arguments.plot).open("a").close()
        except OSError as error:
            parser.error(f"--plot {arguments.plot}: {error.strerror}")
    _raise_descriptors()
    _run(target, load, arguments, parser)

    judgement = Judgement(arguments.exclusive, arguments.max_failures, arguments.max_uncounted)
    report = Report(load.visits, load.now, judgement, arguments.rate)
    parser.print(json.dumps(report.as_json()) if arguments.json else report.as_text())
    if arguments.plot is not None:
        try:
            Path(arguments.plot).write_text(draw(load.visits, load.now), encoding="utf-8")
        except OSError as error:
            parser.error(f"--plot {arguments.plot}: {error.strerror}")
    sys.exit(1 if report.problems else 0)


def _say(line: str) -> None:
    write(sys.stderr, f"check.py: {line}\n")


def _run(target: Target, load: Load, arguments: argparse.Namespace, parser: Parser) -> None:
    """Run the load, or end with a line that says why there is nothing to report."""

    async def wait_and_drive() -> None:
        if arguments.wait:
            await until_ready(target, arguments.replicas, arguments.wait, arguments.timeout, _say)
        await _drive(load, arguments)

    try:
        asyncio.run(wait_and_drive())
    except NotReady as error:
        parser.exit(1, f"check.py: FAILED: {error}\n")
    except Redirected as error:
        parser.error(f"{arguments.url} answers with a redirect to {error.target}; audit that")
    except NotFriendlyhello as error:
        parser.error(f"{arguments.url} does not answer as friendlyhello does: {error}")
    except RanOut as error:
        parser.error(str(error))
    except KeyboardInterrupt:  # the second Ctrl-C, while the load waits for visits under way
        parser.exit(130, "check.py: interrupted, no report\n")


def _check_together(arguments: argparse.Namespace, parser: Parser) -> None:
    """Refuse options that contradict each other, and options that would have no effect."""
    given = [
        name
        for name in ("cacert", "insecure", "cert", "key")
        if getattr(arguments, name) not in (None, False)
    ]
    if given and not arguments.url.lower().startswith("https:"):
        parser.error(f"--{given[0]} is allowed with an https:// URL")
    if arguments.replicas > 1 and not arguments.wait:
        parser.error("--replicas is allowed with --wait")
    if arguments.key is not None and arguments.cert is None:
        parser.error("--key is allowed with --cert")
    if [name.lower() for name, _ in arguments.header].count("host") > 1:
        parser.error("--header Host is allowed once")


def _target(arguments: argparse.Namespace) -> Target:
    tls = functools.partial(
        tls_context, arguments.cacert, arguments.insecure, arguments.cert, arguments.key
    )
    return Target(arguments.url, headers=arguments.header, connect=arguments.connect, tls=tls)


def _raise_descriptors() -> None:
    """Raise the soft limit of descriptors to the hard limit (getrlimit(2)) if possible."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, MACOS_MOST):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return


async def _drive(load: Load, arguments: argparse.Namespace) -> None:
    """Run the load until its end, Ctrl-C or SIGTERM, and show the progress."""
    loop = asyncio.get_running_loop()

    def stop(signum: int) -> None:
        load.stop()
        if signum == signal.SIGTERM:
            loop.call_later(LAST_VISITS, running.cancel)
        for one in (signal.SIGINT, signal.SIGTERM):  # the next one ends the program
            loop.remove_signal_handler(one)
        signal.signal(signal.SIGTERM, end_at_once)

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop, signum)
    running = asyncio.create_task(load.run())
    with tqdm(
        total=arguments.duration or arguments.requests,
        disable=None,  # when standard error is no terminal
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
    if not running.cancelled():
        running.result()


if __name__ == "__main__":
    logging.getLogger("tornado").setLevel(logging.CRITICAL)  # the report has the failures
    main()
