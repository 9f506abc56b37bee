"""Requests that clients have sent ahead begin a few at a time, and each begins."""

import asyncio
from itertools import groupby

from tornado.ioloop import IOLoop

from http1.turns import AT_ONCE, Turns


async def test_so_many_begin_in_one_turn_in_their_order_and_a_failure_stops_none(
    io_loop: IOLoop,
) -> None:
    turns, begun, turn = Turns(), list[tuple[int, int]](), 0
    number = 3 * AT_ONCE + 1
    failed = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))

    def begin(one: int) -> None:
        begun.append((turn, one))
        if one == 0:
            turns.add(lambda: begin(number))  # it comes again, after all who wait
            raise ValueError

    for one in range(number):
        turns.add(lambda one=one: begin(one))  # type: ignore[misc]
    while len(begun) <= number:
        await asyncio.sleep(0)
        turn += 1
    assert [one for _, one in begun] == [*range(number + 1)]
    assert max(len([*group]) for _, group in groupby(begun, lambda pair: pair[0])) == AT_ONCE
    assert len(failed) == 1
