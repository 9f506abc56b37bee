"""A counter of a test's own, without a server."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from counter import Visits
from tests.support.waiting import PATIENCE

#: As `counter.statistics.MARK_EVERY`, so short that each group of visits is a mark.
ALWAYS = 1e-6


@contextlib.asynccontextmanager
async def counting(
    url: str, hostname: str = "web-1", timeout: float = PATIENCE, **options: Any
) -> AsyncIterator[Visits]:
    """Count until the end of the context."""
    visits = Visits(url, timeout=timeout, **options)
    try:
        yield visits
    finally:
        await visits.close()
