"""Every order of events, within small bounds; `tests/faults/test_orders.py` has the large ones."""

from collections.abc import Iterator

import pytest

from tests.support import Caplog
from tests.support.life import Bounds
from tests.support.orders import Search, Violation

SMALL = [
    Bounds(batches=3, sizes=(1, 2, 3), deadlines=2, looks=2),
    Bounds(deadlines=1, looks=2, beside=2, goers=1),
    Bounds(deadlines=1, looks=2, starts=True),
    Bounds(deadlines=1, looks=1, kills=1, goers=1),
    Bounds(sizes=(1,), deadlines=1, looks=1, refusals=1),
    Bounds(processes=2, batches=1, deadlines=1, looks=1),
    Bounds(processes=2, batches=1, sizes=(1,), deadlines=1, looks=1, goers=1, kills=1),
    Bounds(deadlines=1, looks=1, wait=1, failovers=2),
    Bounds(processes=2, batches=1, sizes=(1,), deadlines=1, wait=1, failovers=1),
    Bounds(cuts=2, deadlines=1, goers=1),
    Bounds(cuts=1, deadlines=1, wait=1, failovers=1),
]


@pytest.fixture(autouse=True)
def _quiet(caplog: Caplog) -> Iterator[None]:
    with caplog.at_level("CRITICAL", logger="friendlyhello.visits"):
        yield


@pytest.mark.parametrize("bounds", SMALL, ids=str)
def test_no_order_of_events_shows_a_number_twice_or_loses_one(bounds: Bounds) -> None:
    assert Search(bounds._replace(in_two=True)).run().states > 100


def test_a_failover_without_wait_is_found_to_lose_a_number() -> None:
    with pytest.raises(Violation) as found:
        Search(Bounds(failovers=1)).run()
    schedule = str(found.value).splitlines()
    assert "the replica becomes the primary" in schedule
    assert schedule[-1].startswith("[1] are beyond the counter")
