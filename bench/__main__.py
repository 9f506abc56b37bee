"""``python -m bench``: measure friendlyhello beside its peers. Run it as ``make bench``."""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from bench import goals, report, results, scale
from bench.results import Results
from bench.servers import BY_NAME, HERE, OURS, SERVERS, lacks, prepare

#: Exit statuses: friendlyhello fails a check or a program is missing; bad arguments; Ctrl-C.
FAILED, USAGE, INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """argparse's parser, but an error is one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        _fail(USAGE, message)


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) <= 3600:
        raise ValueError
    return value


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in BY_NAME]:
        raise argparse.ArgumentTypeError(f"no {unknown[0]!r} among {', '.join(BY_NAME)}")
    return names


def _rounds(text: str) -> int:
    if not 0 < (value := int(text)) <= 1000:
        raise ValueError
    return value


_positive.__name__, _rounds.__name__ = "seconds", "rounds"  # for argparse's "invalid … value"


def _arguments() -> argparse.Namespace:
    parser = _Parser(prog="python -m bench", description="Measure friendlyhello beside its peers.")
    add = parser.add_argument
    add("what", nargs="?", choices=["compare", "profile"], default="compare")
    add("--rounds", type=_rounds, default=5, help="how often to measure each server (default 5)")
    add("--seconds", type=_positive, default=0.8, help="of each measurement (default 0.8)")
    add(
        "--only",
        type=_names,
        metavar="NAME,…",
        help=f"print the figures of these servers only, write nothing: {', '.join(BY_NAME)}",
    )
    return parser.parse_args()


def _compare(options: argparse.Namespace) -> None:
    """Measure, then print or write."""
    from bench import run  # imported here, as only bench/.venv has their packages
    from bench.machine import machine

    servers = [BY_NAME[name] for name in options.only] if options.only else list(SERVERS)
    missing = prepare(servers)
    for name, why in missing.items():
        print(f"bench: {BY_NAME[name].title} is left out: {why}", file=sys.stderr)
    servers = [server for server in servers if server.name not in missing]
    found = Results(rounds=options.rounds, seconds=options.seconds, missing=missing)
    with tempfile.TemporaryDirectory() as folder:
        with run.bench(options.seconds, Path(folder) / "one") as now:
            found.machine, found.versions = machine(), run.versions(now.redis)
            run.main_rounds(now, servers, options.rounds, found)
            run.open_loop(now, found)
            more = (run.page_in_process, run.growth, run.distance, run.many_servers)
            for measure in () if options.only else more:
                print(measure.__name__.replace("_", " "), flush=True)
                measure(now, found)
        run.two_processes(options.seconds, Path(folder), servers, found)
    if options.only:
        print(report.figures(found), report.differences(_committed(), found), sep="\n")
    else:
        _write(found)
    judge(found)


def judge(found: Results) -> None:
    """Print which checks failed. If a peer fails a check under load, this is a result like others.

    :raises SystemExit: with status 1 when friendlyhello failed a check.
    """
    for problem in found.problems:
        print(f"bench: check failed: {problem}", file=sys.stderr)
    if any(row.server == OURS for row in found.failed):
        sys.exit(FAILED)


def _write(found: Results) -> None:
    """Write the results, and compare them with the committed ones."""
    from bench import plot

    before = _committed()
    found.dump(HERE / "results.json")
    (HERE / "results.md").write_text(report.write(found, before))
    (HERE / "SCALE.md").write_text(scale.write(found))
    plot.draw(found, HERE / "results.svg")
    print(goals.table_of(found), report.differences(before, found), sep="\n\n")
    print("\nbench/results.md, bench/results.svg and bench/SCALE.md hold the rest.")


def _committed() -> Results | None:
    """Return the last committed results; None when there are none."""
    show = ("git", "show", "HEAD:./results.json")
    try:
        shown = subprocess.run(show, cwd=HERE, capture_output=True, text=True, check=True)
        return results.load(shown.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError, TypeError, KeyError):
        return None  # no results yet, no git, or the results of another version


def _profile(options: argparse.Namespace) -> None:
    from bench import run

    output = HERE / "profile.svg"
    with tempfile.TemporaryDirectory() as folder, run.bench(options.seconds, Path(folder)) as now:
        run.profile(now, max(options.seconds, 6), output)
    print("bench/profile.svg is the flame graph.")


def main() -> None:
    """Run the program.

    :raises SystemExit: with status 2 for bad arguments, 1 when a check failed, 130 on Ctrl-C.
    """
    options = _arguments()
    if lacks(["wrk"]):
        _fail(FAILED, "wrk makes the load, and is not installed: apt-get install wrk")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from bench.machine import BenchError
    except ImportError as error:
        _fail(FAILED, f"{error.name} is not installed here: `make bench` uses bench/.venv")
    try:
        (_profile if options.what == "profile" else _compare)(options)
    except BenchError as error:
        _fail(FAILED, str(error))
    except KeyboardInterrupt:
        _fail(INTERRUPTED, "interrupted")


def _fail(status: int, message: str) -> NoReturn:
    print(f"bench: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
