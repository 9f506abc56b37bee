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
from collections.abc import Callable, Sequence
from urllib.parse import quote

from counter import Connector, packed
from replicas.figures import SIGN_EVERY, Figures
from replicas.link import Link, RefusedError, seconds

#: Characters that are told of the reason why Redis was away.
MAX_REASON = 200

#: Seconds that the end waits until Redis has the goodbye.
GOODBYE_TIMEOUT = 0.4

log = logging.getLogger("friendlyhello.visits")


class Telling:
    """What one process tells.

    :arg figures: what it writes, besides.
    :arg key: where: the record's key.
    :arg connector: the way to Redis, used by nobody else; no connection is held while there is
        nothing to tell.
    :arg is_draining: tells whether the process is to stop.
    :arg faults: returns the kinds of faults that it has now; None when it can have none.
    """

    def __init__(
        self,
        figures: Figures,
        key: str,
        connector: Connector,
        is_draining: Callable[[], bool],
        faults: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self._figures = figures
        self._key = key
        self._link = Link(connector)
        self._is_draining = is_draining
        self._faults = faults or (lambda: ())
        self._is_last = False
        # Unknown with faults: those of a process of this replica that has gone may stand there.
        self._told: object = None if faults else self._state()
        self._has_said = False  # what Redis refuses
        self._task: asyncio.Task[None] | None = None
        figures.begun  # noqa: B018, now

    def start(self) -> None:
        """Tell what there is, until closed."""
        self._task = asyncio.create_task(self._keep())

    def look(self) -> None:
        """Look at once whether there is something to tell."""
        self._figures.news.set()

    async def close(self) -> None:
        """Say goodbye, if anybody knows the process, and end."""
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
        if not self._figures.is_known:  # who is not known has nobody to say it to
            return ""
        return "gone" if self._is_last else "draining" if self._is_draining() else ""

    def _state(self) -> object:
        return ",".join(self._faults()), self._stage, [*self._figures.away]

    async def _tell(self) -> None:
        """Write it; without Redis nobody is told anything, and it is tried again."""
        state = self._state()
        try:
            for reply in await self._link.within_time(self._write):
                if isinstance(reply, RefusedError):
                    raise reply
            self._told = state
        except RefusedError as error:
            self._told = state  # but for what lasts it is not tried again
            if not self._has_said:
                self._has_said = True
                log.warning("/live cannot show all of this replica, as Redis refuses %s", error)
        except Exception as error:
            log.debug("nothing is told: %s", self._link.reason(error))

    async def _write(self) -> Sequence[object]:
        (told,) = await self._link.ask([packed("TIME")])
        now = time.time() if isinstance(told, RefusedError) else seconds(told)
        ahead = now - time.monotonic()
        away = " ".join(
            f"{ahead + start:.3f} {ahead + end:.3f} {quote(reason[:MAX_REASON], safe='')}"
            for start, end, reason in self._figures.away
        )
        fields = {"faults": ",".join(self._faults()), "state": self._stage, "away": away}
        return await self._link.ask(self._figures.told(self._key, now, **fields))
