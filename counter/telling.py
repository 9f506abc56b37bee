"""Tells what is wrong with this replica, so that whoever watches any replica can see it.

A replica that answers no page counts none, so this does not go along with visits. It goes once a
second, over a connection of its own, as long as anything is wrong, and once when nothing is.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from counter.statistics import MARK_EVERY, ProcessStatistics, RefusedError, StatisticsReader

log = logging.getLogger("friendlyhello.visits")


async def keep_telling(
    connection: StatisticsReader, statistics: ProcessStatistics, look: Callable[[], Sequence[str]]
) -> None:
    """Write the faults of this process beside the counter, until cancelled.

    :arg connection: used by nobody else; it is closed while there is nothing to tell.
    :arg look: returns the kinds of faults that there are now.
    """
    is_told = True  # maybe: by a process of this replica that has gone, or without a reply
    is_refused = False
    try:
        while True:
            kinds = look()
            if kinds or is_told:
                is_told = True
                # Without Redis nobody is told anything; it is tried again, also to take it back.
                try:
                    await connection.write(statistics.faults(kinds))
                    is_told = bool(kinds)
                except Exception as error:
                    if isinstance(error, RefusedError) and not is_refused:
                        is_refused = True
                        log.warning("/live cannot show faults, as Redis refuses %s", error)
            if not is_told:
                await connection.close()
            await asyncio.sleep(MARK_EVERY)
    finally:
        await connection.close()
