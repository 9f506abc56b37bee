"""Fuzzes the HTTP connection: ``python -m tests.fuzz [MINUTES]``, 20 when it is not said.

Exit status 1 when it finds something, which it writes to the corpus: it is a test from then on.
"""

import hashlib
import itertools
import resource
import sys
import time
from pathlib import Path

from tests.fuzz.oracles import trying

CORPUS = Path(__file__).parent / "corpus"

#: Inputs of one run of hypothesis, which keeps in mind what it has drawn.
ROUND = 1000

#: Rounds in which the memory takes its size, and bytes that it may grow by afterwards.
WARM, GROWTH = 5, 32 << 20


def memory() -> int:
    """Bytes in memory (proc_pid_statm(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fuzz(seconds: float) -> None:
    start = time.monotonic()
    sizes: list[int] = []
    with trying() as tried:
        for seed in itertools.count(time.time_ns()):
            try:
                tried.check_new(ROUND, seed)
            except BaseException:
                path = CORPUS / f"found-{hashlib.sha256(tried.last).hexdigest()[:8]}.http"
                path.write_bytes(tried.last)
                print(f"found: {tried.last!r}, kept in {path}", file=sys.stderr)
                raise
            sizes.append(memory())
            took = time.monotonic() - start
            sent = f"{tried.inputs} inputs on {tried.connections} connections in {took:.0f} s"
            speed = f"{tried.inputs / took:.0f} inputs/s"
            print(f"{sent} ({speed}), {sizes[-1] >> 20} MiB of memory", flush=True)
            assert sizes[-1] - sizes[: WARM + 1][-1] < GROWTH, f"memory grows: {sizes}"
            if took >= seconds:
                break
    print("nothing found")


if __name__ == "__main__":
    fuzz(60 * float(sys.argv[1] if len(sys.argv) > 1 else 20))
