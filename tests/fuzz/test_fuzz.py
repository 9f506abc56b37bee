"""What the fuzzer has found stays mended, and a few inputs more find nothing new."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_clients import ROWS
from tests.fuzz.client import End, Manner
from tests.fuzz.oracles import trying

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.http"))
SENT = {path.stem: path.read_bytes() for path in CORPUS} | {
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
