"""The event loop sleeps, but for a moment after an answer to a client that asks on and on."""

import asyncio
from types import SimpleNamespace

import pytest

from tests.support.served import GET, WAITING, Serve
from tests.support.waiting import eventually


class Clock:
    """The clock of busy polling, which reads it in each turn of the loop. It all but stands."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readings = 0

    def perf_counter(self) -> float:
        self.readings += 1
        self.now += 1e-12  # no two readings are the same
        return self.now

    async def is_read(self) -> bool:
        """Tell whether the loop is kept turning."""
        await asyncio.sleep(0.05)  # what was sent has its consequences
        before = self.readings
        await asyncio.sleep(0.05)
        return self.readings > before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("http1.busy_poll.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


async def test_a_client_that_asks_at_once_finds_the_server_awake_for_a_moment(
    serve: Serve, clock: Clock
) -> None:
    served = serve()
    client = await served.connect()
    for _ in range(20):
        await client.ask(GET)
    before, turns = clock.readings, 100
    for _ in range(turns):
        await asyncio.sleep(0)
    assert 0 < clock.readings - before < 2 * turns, "many answers make no more turns than one"
    await eventually(lambda: clock.readings > before + 1000)
    client.send(WAITING)
    await eventually(lambda: "/waiting" in served.state.begun)
    assert not await clock.is_read(), "it does not sleep while a request takes its time"
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"
    for _ in range(3):
        await client.ask(GET)
    assert await clock.is_read()
    clock.now += 1
    assert not await clock.is_read(), "it does not sleep when the moment is over"


@pytest.mark.parametrize("takes_its_time", [True, False], ids=["slow", "taking turns"])
async def test_clients_that_take_their_time_or_turns_are_waited_for_asleep(
    takes_its_time: bool, serve: Serve, clock: Clock
) -> None:
    served = serve()
    clients = [await served.connect() for _ in range(1 if takes_its_time else 2)]
    for _ in range(4):
        for client in clients:
            assert (await client.ask(GET)).status == 200
        clock.now += takes_its_time
    assert (await clients[0].ask(GET)).status == 200
    assert not await clock.is_read()
