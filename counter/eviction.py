"""Whether Redis may evict keys. If Redis evicts a key of the counter, no script can restore it."""

import asyncio
import logging
from typing import Any

from counter.connector import Connector
from counter.opening import close

#: Seconds that the question to Redis may take, connecting included.
TIMEOUT = 2.0

log = logging.getLogger("friendlyhello.visits")


class Eviction:
    """Asks Redis for its eviction policy, and warns.

    :arg connector: the way to Redis.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self.warning = ""
        """The warning for an operator; empty when Redis evicts nothing, or does not tell."""

    async def look(self) -> None:
        """Ask by INFO (https://redis.io/docs/latest/commands/info/), and log a new warning."""
        try:
            async with asyncio.timeout(TIMEOUT):
                opened = await self._connector.connect()
                try:
                    warning = warning_of(await opened.redis.info("memory"))
                finally:
                    await close(opened.redis)
        except Exception as error:  # there are many possible reasons, and visits count anyway
            log.debug("Redis does not tell whether it evicts keys: %s", error)
            return
        if warning and warning != self.warning:
            log.warning("%s", warning)
        self.warning = warning


def warning_of(memory: dict[str, Any]) -> str:
    """Return a warning if Redis may evict keys; else an empty text.

    :arg memory: the answer of INFO about the memory
        (https://redis.io/docs/latest/develop/reference/eviction/).
    """
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if not memory.get("maxmemory") or policy == "noeviction":
        return ""
    return (
        f"Redis may evict the counter's keys, as its maxmemory-policy is {policy}: "
        "use noeviction, else numbers may be lost or shown twice"
    )
