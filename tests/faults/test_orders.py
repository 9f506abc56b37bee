"""Every order of events, within large bounds; `tests/counter/test_orders.py` has the small ones.

With `pytest -s` it prints the states and steps of each search, and the seconds of CPU that it took.
"""

import pytest

from tests.support.life import Bounds
from tests.support.orders import Search

TWO = Bounds(processes=2, batches=1, sizes=(1,), deadlines=1, looks=1)
THREE = TWO._replace(processes=3)

LARGE = [
    # Two processes whole, and with two failovers.
    Bounds(processes=2, deadlines=1, looks=2),
    TWO._replace(batches=2, wait=1, failovers=2),
    # Visitors who go, kills and refusals.
    TWO._replace(goers=1, kills=1, wait=1, failovers=1),
    Bounds(deadlines=1, looks=1, goers=1, refusals=1),
    TWO._replace(refusals=1),
    # Probes beside each other, and before the first visits.
    Bounds(deadlines=2, looks=4, beside=3, goers=1),
    TWO._replace(batches=2, looks=2, starts=True),
    # Three processes.
    THREE._replace(sizes=(1, 2), kills=1),
    THREE._replace(goers=1),
    THREE._replace(wait=1, failovers=1),
]


@pytest.mark.no_cover
@pytest.mark.timeout(900)  # the largest takes 25 s of CPU
@pytest.mark.parametrize("bounds", LARGE, ids=str)
def test_no_order_of_events_shows_a_number_twice_or_loses_one(bounds: Bounds) -> None:
    found = Search(bounds).run()
    print(f"{bounds}: {found.states:,} states, {found.steps:,} steps, {found.seconds:.1f} s")
    assert found.states > 10_000
