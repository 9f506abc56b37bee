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


@pytest.mark.parametrize(
    ("bounds", "wrong"),
    [
        (Bounds(failovers=1), ["the replica becomes the primary", "[1] are beyond the counter"]),
        (
            Bounds(evictions=1, records_go=True),
            ["A's record is evicted", "[1] are neither shown nor spare"],
        ),
        (
            Bounds(batches=1, evictions=1, deadlines=1, looks=1),
            ["the spare numbers are evicted", "[1] are neither shown nor spare"],
        ),
    ],
    ids=["a failover without WAIT", "a record evicted", "spare numbers evicted"],
)
def test_what_can_lose_a_number_is_found(bounds: Bounds, wrong: list[str]) -> None:
    with pytest.raises(Violation) as found:
        Search(bounds).run()
    schedule = str(found.value)
    assert all(line in schedule for line in wrong), schedule
