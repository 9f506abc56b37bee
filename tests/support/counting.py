"""A counter of a test's own, without a server."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from counter import Visits, process_key
from replicas import Figures, Reader, Telling
from tests.support.waiting import PATIENCE

#: As `replicas.figures.SIGN_EVERY`, so short that each group of visits is a sign.
ALWAYS = 1e-6


@contextlib.asynccontextmanager
async def counting(url: str, **options: Any) -> AsyncIterator[Visits]:
    """Count until the end of the context, and nothing beside."""
    visits = Visits(url, **{"timeout": PATIENCE} | options)
    try:
        yield visits
    finally:
        await visits.close()


@contextlib.asynccontextmanager
async def replica(
    url: str,
    hostname: str = "web-1",
    *,
    version: str = "",
    labels: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[Visits]:
    """Count until the end of the context, and write the figures, as a server does."""
    async with counting(url, beside=Figures(hostname, version, labels), **options) as visits:
        yield visits


@contextlib.contextmanager
def reading(visits: Visits) -> Any:
    """Return a reader of what all processes write where these visits are counted."""
    reader = Reader(visits.new_connector())
    try:
        yield reader
    finally:
        reader.close()


@contextlib.asynccontextmanager
async def telling(
    visits: Visits,
    look: Callable[[], Sequence[str]] | None = None,
    is_draining: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Telling]:
    """Tell what there is until the end of the context, and then goodbye."""
    figures = visits._link._beside
    assert isinstance(figures, Figures)
    key, connector = process_key(visits.process_id), visits.new_connector()
    one = Telling(figures, key, connector, is_draining, look)
    one.start()
    try:
        yield one
    finally:
        await one.close()
