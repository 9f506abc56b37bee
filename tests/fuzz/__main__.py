"""Fuzzes the HTTP connection: ``python -m tests.fuzz [MINUTES]``, 20 when it is not said.

Exit status 1 when it finds something, which it writes to the corpus: it is a test from then on.
"""

import hashlib
import io
import itertools
import resource
import sys
import time
from pathlib import Path

import coverage
import hypothesis

# Started before http1 is imported, so that its lines which run but once are covered too.
covered = coverage.Coverage(branch=True, source_pkgs=["http1"], data_file=None, config_file=False)
covered.start()

from tests.fuzz.messages import Input, inputs  # noqa: E402
from tests.fuzz.oracles import Tried, trying  # noqa: E402

CORPUS = Path(__file__).parent / "corpus"

#: Inputs of one run of hypothesis, which keeps in mind what it has drawn.
ROUND = 1000

#: Rounds in which the memory takes its size, and bytes that it may grow by afterwards.
WARM, GROWTH = 5, 32 << 20

SETTINGS = hypothesis.settings(
    max_examples=ROUND,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def memory() -> int:
    """Bytes in memory (proc_pid_statm(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def try_round(tried: Tried, seed: int) -> None:
    """Try inputs, and keep the shortest that is found to go wrong."""
    last = b""

    def check(one: Input) -> None:
        nonlocal last
        last = one.data
        tried.check(one.data, one.manners, one.is_valid)

    try:
        hypothesis.seed(seed)(SETTINGS(hypothesis.given(inputs())(check)))()
    except BaseException:
        path = CORPUS / f"found-{hashlib.sha256(last).hexdigest()[:8]}.http"
        path.write_bytes(last)
        print(f"found: {last!r}, kept in {path}", file=sys.stderr)
        raise


def fuzz(seconds: float) -> None:
    start = time.monotonic()
    sizes: list[int] = []
    with trying() as tried:
        for seed in itertools.count(time.time_ns()):
            try_round(tried, seed)
            covered.stop()  # it costs, and another round covers little more
            sizes.append(memory())
            took = time.monotonic() - start
            print(
                f"{tried.inputs} inputs on {tried.connections} connections in {took:.0f} s "
                f"({tried.inputs / took:.0f} inputs/s), {sizes[-1] >> 20} MiB of memory",
                flush=True,
            )
            assert sizes[-1] - sizes[: WARM + 1][-1] < GROWTH, f"memory grows: {sizes}"
            if took >= seconds:
                break
    percent = covered.report(file=io.StringIO())
    print(f"nothing found; the first {ROUND} inputs covered {percent:.0f} % of http1")


if __name__ == "__main__":
    fuzz(60 * float(sys.argv[1] if len(sys.argv) > 1 else 20))
