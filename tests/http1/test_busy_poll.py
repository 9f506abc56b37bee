"""The event loop sleeps, but for a moment after an answer to a client that asks on and on."""

import asyncio

from tests.support import Patch
from tests.support.served import GET, WAITING, Serve
from tests.support.waiting import eventually


class Clock:
    """The clock of busy polling, which reads it in each turn of the loop. It all but stands."""

    now, readings = 0.0, 0

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


async def test_who_asks_at_once_finds_the_server_awake(serve: Serve, monkeypatch: Patch) -> None:
    clock = Clock()
    monkeypatch.setattr("http1.busy_poll.time", clock)
    served = serve()
    client, other = await served.connect(), await served.connect()
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
    for clients, seconds, is_awake in (
        ([client], 0, True),
        ([client, other], 0, False),  # they take turns
        ([client], 1, False),  # it takes its time
    ):
        for _ in range(4):
            for one in clients:
                clock.now += seconds
                assert (await one.ask(GET)).status == 200
        assert await clock.is_read() == is_awake
        clock.now += 1
        assert not await clock.is_read(), "it does not sleep when the moment is over"
