"""A race: several ways to one end, or one way several times, of which the first is taken."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

Prize = TypeVar("Prize")

#: Begins a way.
Way = Callable[[], Coroutine[Any, Any, Prize]]


async def first(
    ways: Iterable[Way[Prize]],
    *,
    delay: float = 0.0,
    discard: Callable[[Prize], Awaitable[None]],
) -> Prize:
    """Return what the first way leads to; the others are given up.

    asyncio has such a race for connecting only, and uvloop has none.

    :arg ways: at least one.
    :arg delay: seconds from the start of one to that of the next, which starts at once when
        another has failed.
    :arg discard: is given what is not returned, as two may get there in the same moment.
    :raises Exception: the error of the one that failed last, when all do.
    """
    tasks: list[asyncio.Task[Prize]] = []
    try:
        winner = await _winner(ways, delay, tasks)
        await _give_up([task for task in tasks if task is not winner], discard)
    except BaseException:
        await _give_up(tasks, discard)
        raise
    return winner.result()


async def _winner(
    ways: Iterable[Way[Prize]], delay: float, tasks: list[asyncio.Task[Prize]]
) -> asyncio.Task[Prize]:
    """Begin the ways, as long as none has got there, and keep them in a list."""
    left = iter(ways)
    pending: set[asyncio.Task[Prize]] = set()
    error: BaseException | None = None
    while True:
        way = next(left, None)
        if way is not None:
            tasks.append(asyncio.create_task(way()))
            pending.add(tasks[-1])
        elif not pending:
            assert error is not None
            raise error
        done, pending = await asyncio.wait(
            pending,
            timeout=None if way is None else delay,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in done:
            error = task.exception()
            if error is None:
                return task


async def first_to_end(
    way: Way[Prize], *, every: float, discard: Callable[[Prize], Awaitable[None]]
) -> Prize:
    """Return what a way leads to, which is begun anew beside one that is stuck.

    :arg way: may be under way many times at once.
    :arg every: seconds from the start of one to that of the next, as long as none has ended. That
        a later one takes too long is no end: the first may still get there.
    :arg discard: is given what is not returned.
    :raises Exception: the error of the first one to end, when it fails.
    """
    tasks: list[asyncio.Task[Prize]] = []
    ended: list[asyncio.Task[Prize]] = []
    try:
        while not ended:
            tasks.append(asyncio.create_task(way()))
            under_way = [task for task in tasks if not task.done()]
            await asyncio.wait(under_way, timeout=every, return_when=asyncio.FIRST_COMPLETED)
            ended = [task for task in tasks if task.done() and not _is_late(task, tasks[0])]
    finally:
        winner = min(ended, key=lambda task: task.exception() is not None, default=None)
        await _give_up([task for task in tasks if task is not winner], discard)
    assert winner is not None
    return winner.result()


def _is_late(task: asyncio.Task[Prize], first: asyncio.Task[Prize]) -> bool:
    return task is not first and isinstance(task.exception(), TimeoutError)


async def _give_up(
    tasks: Iterable[asyncio.Task[Prize]], discard: Callable[[Prize], Awaitable[None]]
) -> None:
    for result in await cancel(tasks):
        if not isinstance(result, BaseException):
            await discard(result)


async def cancel(tasks: Iterable[asyncio.Task[Prize]]) -> list[Prize | BaseException]:
    """Cancel tasks, wait until they have ended, and return how each did."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    return await asyncio.gather(*ending, return_exceptions=True)
