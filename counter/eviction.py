"""Whether Redis may evict keys: what it evicts of the counter's keys, no script can get back."""

import asyncio
import logging
from typing import Any

from counter.connector import Connector
from counter.opening import close

#: Seconds in which Redis is asked, connecting included.
TIMEOUT = 2.0

log = logging.getLogger("friendlyhello.visits")


class Eviction:
    """Asks Redis for its policy, and warns.

    :arg connector: the way to Redis.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self.warning = ""
        """What an operator should know; empty when Redis evicts nothing, or does not tell."""

    async def look(self) -> None:
        """Ask (https://redis.io/docs/latest/commands/info/), and log a warning that is new."""
        try:
            async with asyncio.timeout(TIMEOUT):
                opened = await self._connector.connect()
                try:
                    warning = warning_of(await opened.redis.info("memory"))
                finally:
                    await close(opened.redis)
        except Exception as error:  # it may not tell, for many reasons; visits count all the same
            log.debug("Redis does not tell whether it evicts keys: %s", error)
            return
        if warning and warning != self.warning:
            log.warning("%s", warning)
        self.warning = warning


def warning_of(memory: dict[str, Any]) -> str:
    """Return a warning where keys may be evicted, else nothing.

    :arg memory: what INFO tells of the memory
        (https://redis.io/docs/latest/develop/reference/eviction/).
    """
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if not memory.get("maxmemory") or policy == "noeviction":
        return ""
    return (
        f"Redis may evict the counter's keys, as its maxmemory-policy is {policy}: "
        "use noeviction, else numbers may be lost or shown twice"
    )
