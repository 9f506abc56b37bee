"""A race between several ways to a result, or several attempts at one way. The first wins."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

Prize = TypeVar("Prize")

#: Begins an attempt.
Way = Callable[[], Coroutine[Any, Any, Prize]]


async def first(
    ways: Iterable[Way[Prize]],
    *,
    delay: float = 0.0,
    discard: Callable[[Prize], Awaitable[None]],
) -> Prize:
    """Return the result of the first way that succeeds, and cancel the others.

    asyncio has such a race for connecting only, and uvloop has none.

    :arg ways: at least one.
    :arg delay: seconds between the starts of two ways. When a way fails, the next starts at once.
    :arg discard: gets each further result: two ways may succeed at the same moment.
    :raises Exception: when all ways fail, the error of the way that failed last.
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
    """Begin one way after another until one succeeds, and return it.

    :arg tasks: gets the task of each way that has begun.
    """
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
    """Return the result of the first attempt that ends. Begin more attempts while all are stuck.

    :arg way: begins an attempt. Many may be under way at the same time.
    :arg every: seconds between the starts of two attempts, as long as none has ended. A timeout of
        a later attempt does not count as an end: the first attempt may still succeed.
    :arg discard: gets each result that is not returned.
    :raises Exception: when the first attempt to end has failed, its error.
    """
    tasks: list[asyncio.Task[Prize]] = []
    ended: list[asyncio.Task[Prize]] = []
    try:
        while not ended:
            tasks.append(asyncio.create_task(way()))
            under_way = [task for task in tasks if not task.done()]
            await asyncio.wait(under_way, timeout=every, return_when=asyncio.FIRST_COMPLETED)
            ended = [task for task in tasks if task.done() and not _is_late(task, tasks[0])]
        winner = min(ended, key=lambda task: task.exception() is not None)
        await _give_up([task for task in tasks if task is not winner], discard)
    except BaseException:
        await _give_up(tasks, discard)
        raise
    return winner.result()


def _is_late(task: asyncio.Task[Prize], first: asyncio.Task[Prize]) -> bool:
    return task is not first and isinstance(task.exception(), TimeoutError)


async def _give_up(
    tasks: Iterable[asyncio.Task[Prize]], discard: Callable[[Prize], Awaitable[None]]
) -> None:
    """Cancel tasks, and discard the results of those that have one.

    This goes on when the caller is cancelled once more, as by a second deadline.
    """
    await asyncio.shield(asyncio.create_task(_discard_all(tasks, discard)))


async def _discard_all(
    tasks: Iterable[asyncio.Task[Prize]], discard: Callable[[Prize], Awaitable[None]]
) -> None:
    for result in await cancel(tasks):
        if not isinstance(result, BaseException):
            await discard(result)


async def cancel(tasks: Iterable[asyncio.Task[Prize]]) -> list[Prize | BaseException]:
    """Cancel tasks, wait until they have ended, and return the result or error of each."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    return await asyncio.gather(*ending, return_exceptions=True)
