"""What the fuzzer has found stays mended, and a few inputs more find nothing new.

``python -m tests.fuzz.test_fuzz [MINUTES]`` goes on for as long, 20 when it is not said. Exit
status 1 when it finds something, which it writes to the corpus: it is a test from then on.
"""

import hashlib
import itertools
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_clients import ROWS
from tests.fuzz.client import End, Manner
from tests.fuzz.oracles import trying

CORPUS = Path(__file__).parent / "corpus"
SENT = {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("*.http"))} | {
    row.name: row.sent for row in ROWS if isinstance(row.sent, bytes)
}

# Which lines are reached, the other tests tell; to measure it here too takes three quarters of the
# time.
pytestmark = pytest.mark.no_cover


def manners(length: int) -> Iterator[tuple[list[int], Manner]]:
    """Every way to cut in two, and into the smallest pieces, in every manner."""
    places = range(1, length, 1 + length // 300)
    steps = [list(range(0, length, step)) for step in (1, 2, 3)]
    cuts = [[], *steps, *([place] for place in places)]
    for turns, reads, is_one_of_many in (0, 1 << 20, True), (1, 50, False), (7, 1 << 20, True):
        for end in End:
            yield from ((cut, Manner(end, turns, reads, is_one_of_many)) for cut in cuts)


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.slow)])
def test_each_input_comes_to_the_same_however_it_is_cut(every: int) -> None:
    with trying() as tried:
        for name, data in SENT.items():
            try:
                tried.check(data, list(manners(len(data)))[::every])
            except AssertionError as error:
                error.add_note(name)
                raise


@pytest.mark.parametrize("examples", [50, pytest.param(400, marks=pytest.mark.slow)])
def test_nothing_new_is_found(examples: int) -> None:
    with trying() as tried:
        tried.check_new(examples, seed=0)


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
