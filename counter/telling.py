"""Tells what a process has to say of itself, so that whoever watches any replica can see it.

That is what is wrong with it, that it was told to stop and has stopped, and when it was without
Redis. A replica that answers no page counts none, so this does not go along with visits. It goes
over a connection of its own, at once or within a second; and as long as something is wrong or the
process is to stop, once a second, so that it is seen.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal
from urllib.parse import quote

from counter.connection import Command
from counter.reading import RefusedError, StatisticsReader
from counter.statistics import MARK_EVERY, ProcessStatistics

#: Times without Redis that are told, the last ones, and characters of the reason of each.
MAX_SPELLS, MAX_REASON = 8, 200

log = logging.getLogger("friendlyhello.visits")


class Telling:
    """What one process tells.

    :arg connection: used by nobody else; it is closed while there is nothing to tell.
    :arg statistics: the process's.
    :arg look: returns the kinds of faults that there are now; None when there can be none.
    """

    def __init__(
        self,
        connection: StatisticsReader,
        statistics: ProcessStatistics,
        look: Callable[[], Sequence[str]] | None,
    ) -> None:
        self._connection = connection
        self._statistics = statistics
        self._look = look or (lambda: ())
        self._state = ""
        self._is_last = False
        self._spells: list[tuple[float, float, str]] = []  # by this machine's monotonic clock
        self._away: deque[str] = deque(maxlen=MAX_SPELLS)  # by Redis's
        # Unknown with faults: those of a process of this replica that has gone may stand there.
        self._told = {} if look else self._fields()
        self._is_refused = False
        self._news = asyncio.Event()

    def say(self, state: Literal["draining", "gone"]) -> None:
        """Tell it at once. Who is not known has nobody to say it to."""
        self._is_last = state == "gone"
        if self._statistics.is_known:
            self._state = state
        self._news.set()

    def was_away(self, start: float, end: float, reason: str) -> None:
        """Tell, at once, when the process was without Redis.

        :arg start: on the monotonic clock, as ``end``.
        :arg reason: why, without secrets.
        """
        self._spells.append((start, end, reason))
        self._news.set()

    async def keep(self) -> None:
        """Tell what there is, until cancelled, or until it has said that it is gone."""
        try:
            while True:
                self._news.clear()
                is_last = self._is_last
                if self._lasts or self._spells or self._fields() != self._told:
                    await self._tell()
                if is_last:
                    return
                if not self._lasts:
                    await self._connection.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MARK_EVERY):
                        await self._news.wait()
        finally:
            await self._connection.close()

    @property
    def _lasts(self) -> bool:
        return bool(self._look()) or self._state == "draining"

    def _fields(self) -> dict[str, str]:
        faults, away = ",".join(self._look()), " ".join(self._away)
        return {"faults": faults, "state": self._state, "away": away}

    async def _tell(self) -> None:
        """Write it; without Redis nobody is told anything, and it is tried again."""
        fields: dict[str, str] = {}

        def commands_at(now: float) -> list[Command]:
            ahead = now - time.monotonic()
            for start, end, reason in self._spells:
                why = quote(reason[:MAX_REASON], safe="")
                self._away.append(f"{ahead + start:.3f} {ahead + end:.3f} {why}")
            self._spells.clear()
            fields.update(self._fields())
            return self._statistics.told(now, **fields)

        try:
            await self._connection.write(commands_at)
            self._told = fields
        except Exception as error:
            if isinstance(error, RefusedError):
                self._told = fields  # but for what lasts it is not tried again
                self._say_refused(error)

    def _say_refused(self, error: RefusedError) -> None:
        if not self._is_refused:
            self._is_refused = True
            log.warning("/live cannot show all of this replica, as Redis refuses %s", error)
