"""Connections that are new share one timer; each is looked at when it is due, if it is there."""

import asyncio
import gc
import weakref

import pytest
from tornado.ioloop import IOLoop

from http1.first_look import FirstLook
from tests.support.waiting import eventually

pytestmark = pytest.mark.gen_test


class Connection:
    """Is looked at."""

    def __init__(self) -> None:
        self.looked_at = 0.0  # on the loop's clock

    def look(self) -> None:
        assert not self.looked_at, "it is looked at once"
        self.looked_at = asyncio.get_running_loop().time()


async def test_each_connection_is_looked_at_once_and_not_before_it_is_due(io_loop: IOLoop) -> None:
    first_look = FirstLook(0.05)
    due = {}
    for _ in range(3):
        for connection in [Connection() for _ in range(10)]:
            due[connection] = first_look.add(connection)
        await asyncio.sleep(0.03)
    await eventually(lambda: all(connection.looked_at for connection in due))
    assert all(one.looked_at >= when - 0.002 for one, when in due.items())
    late = Connection()  # when the timer has ended
    first_look.add(late)
    await eventually(lambda: bool(late.looked_at))


async def test_who_has_gone_is_forgotten_and_the_others_are_looked_at(io_loop: IOLoop) -> None:
    first_look = FirstLook(0.05)
    gone, there, last = Connection(), Connection(), Connection()
    for connection in (gone, there, last):
        first_look.add(connection)
    for connection in (gone, last, last):
        first_look.discard(connection)
    forgotten = weakref.ref(last)
    del connection, last
    gc.collect()
    assert forgotten() is None
    await eventually(lambda: bool(there.looked_at))
    assert not gone.looked_at
