"""Tells in Redis what happens to a process, so that the live page of any replica can show it.

A process tells its faults, that it will stop, that it has stopped, and its outages. A process
cannot tell this beside visits, because a replica that answers no page counts none. So it uses a
connection of its own, and tells within a second. While the process has faults or drains, it tells
this once a second, so that readers go on seeing the process.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

from counter import Visits, packed, process_key
from replicas.figures import SIGN_EVERY, Figures
from replicas.link import Link, RefusedError, seconds

#: The most characters to tell of the reason why Redis was away.
MAX_REASON = 200

#: Seconds that a process, at its end, gives Redis to take its goodbye.
GOODBYE_TIMEOUT = 0.4

log = logging.getLogger("friendlyhello.visits")


class Telling:
    """Tells what happens to one process.

    :arg figures: of the process.
    :arg visits: the counter of the process. It knows the way to Redis. While there is nothing to
        tell, no connection is open.
    :arg is_draining: tells whether the process was asked to stop.
    :arg faults: returns the kinds of faults that the process has now. None: it can have no fault.
    """

    def __init__(
        self,
        figures: Figures,
        visits: Visits,
        is_draining: Callable[[], bool],
        faults: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self._figures = figures
        self._visits = visits
        self._link = Link(visits.new_connector())
        self._is_draining = is_draining
        self._faults = faults or (lambda: ())
        self._is_last = False
        # With None, the process tells its faults at once. Readers may still see the faults of an
        # earlier process of this replica.
        self._told: object = None if faults else self._state()
        self._has_said = False  # a refusal was logged
        self._task: asyncio.Task[None] | None = None
        figures.begun  # noqa: B018, this sets it to now

    def start(self) -> None:
        """Tell what happens, until `close`."""
        self._task = asyncio.create_task(self._keep())

    def look(self) -> None:
        """Look at once whether there is something to tell."""
        self._figures.news.set()

    async def close(self) -> None:
        """Say goodbye, if the process has written anything before, and end."""
        self._is_last = True
        self.look()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=GOODBYE_TIMEOUT)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep(self) -> None:
        try:
            while True:
                self._figures.news.clear()
                is_last = self._is_last
                if self._lasts or self._state() != self._told:
                    await self._tell()
                if is_last:
                    return
                if not self._lasts:
                    self._link.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SIGN_EVERY):
                        await self._figures.news.wait()
        finally:
            self._link.close()

    @property
    def _lasts(self) -> bool:
        return bool(self._faults()) or self._stage == "draining"

    @property
    def _stage(self) -> str:
        if not self._figures.is_known:  # no reader knows of this process
            return ""
        return "gone" if self._is_last else "draining" if self._is_draining() else ""

    def _state(self) -> object:
        return ",".join(self._faults()), self._stage, [*self._figures.away]

    async def _tell(self) -> None:
        """Write the present state. If no Redis takes it now, try again later."""
        state = self._state()
        try:
            for reply in await self._link.within_time(self._write):
                if isinstance(reply, RefusedError):
                    raise reply
            self._told = state
        except RefusedError as error:
            self._told = state  # from now on, try again only for a state that lasts
            if not self._has_said:
                self._has_said = True
                log.warning("/live cannot show all of this replica, as Redis refuses %s", error)
        except Exception as error:
            log.debug("the live page's figures are not written: %s", self._link.reason(error))

    async def _write(self) -> Sequence[object]:
        (told,) = await self._link.ask([packed("TIME")])
        now = time.time() if isinstance(told, RefusedError) else seconds(told)
        ahead = now - time.monotonic()
        away = " ".join(
            f"{ahead + start:.3f} {ahead + end:.3f} {quote(reason[:MAX_REASON], safe='')}"
            for start, end, reason in self._figures.away
        )
        fields = {"faults": ",".join(self._faults()), "state": self._stage, "away": away}
        key = process_key(self._visits.process_id)
        return await self._link.ask(self._figures.told(key, now, **fields))
