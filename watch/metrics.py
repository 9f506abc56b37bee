"""The metrics: every process counts, and any process can sum the counts of all.

The counts are cells of memory that the processes share. There is a row for each slot of
`Workers`, and one row for the workers' parent. Only the process that has taken a row writes
it, so there are no locks. When a process dies, its counters stay, because a counter must never go
down; the process that takes its row next replaces its gauges.
"""

import asyncio
import functools
import http
import itertools
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import get_args

from tornado.web import RequestHandler

from config import VERSION
from counter import Reason

#: Why a visit got no number.
REASONS: tuple[Reason, ...] = get_args(Reason)

#: The values of labels. Whatever a client asks for, each label has one of these.
OTHER = "other"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", OTHER)
CODES = (*(str(status.value) for status in http.HTTPStatus if status >= 200), OTHER)

#: How many routes there may be. The metrics divide the memory before they know the routes.
MAX_ROUTES = 16

#: Upper bounds of the histograms' buckets: seconds, and visits.
SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 2.5),
)
VISITS = tuple(2.0**power for power in range(14))

#: Seconds after which a process shares its gauges again.
SHARE_EVERY = 1.0

#: The faults that --faults may set, for all processes of a replica.
FAULTS = ("sick", "unready", "dead", "busy", "heavy")

GAUGES = ("connections", "live_watchers", "redis_up", "exactly_once", *FAULTS)

#: The values of a metric, by the values of its labels. A histogram has the count of each bucket,
#: the count past the last bound, and the sum. Other metrics have one value.
Values = Mapping[tuple[str, ...], Sequence[float]]

# The place of each count in a row.
_SUM = len(SECONDS) + 1
_PID = 0
_GAUGES = 1
_VISITS = _GAUGES + len(GAUGES)
_LOG_LINES_DROPPED = _VISITS + 1
_UNCOUNTED = _LOG_LINES_DROPPED + 1
_ROUND_TRIP = _UNCOUNTED + len(REASONS)
_PER_COMMAND = _ROUND_TRIP + len(SECONDS) + 2
_DURATIONS = _PER_COMMAND + len(VISITS) + 2
_OF_A_ROUTE = len(SECONDS) + 2
_REQUESTS = _DURATIONS + MAX_ROUTES * _OF_A_ROUTE
_END = _REQUESTS + MAX_ROUTES * len(METHODS) * len(CODES)


class Metrics:
    """Counts, and sums the counts of all processes.

    :arg version: the label of the version that runs.
    :arg processes: how many processes will serve; each takes a slot after its fork.
    :arg labels: the replica's labels.
    """

    def __init__(
        self,
        version: str = "",
        processes: int = 1,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        size = (processes + 1) * _END
        memory = memoryview(mmap.mmap(-1, size * 8)).cast("d")
        self._rows = [memory[at : at + _END] for at in range(0, size, _END)]
        self.info = {"version": version, "program_version": VERSION, **(labels or {})}
        """What runs: the label of its version, the program's version, and the replica's labels."""
        self._routes: tuple[str, ...] = (OTHER,)
        self._route_of: Mapping[type[RequestHandler], str] = {}
        # The cache is bounded, because a client may invent methods.
        self._cells_of = functools.lru_cache(maxsize=256)(self._find_cells)
        self._gauges: dict[str, Callable[[], float]] = {}
        self.take(0)

    def take(self, slot: int) -> None:
        """Count in a slot from now on. A former process of the slot has died."""
        self._row = self._rows[slot]
        self._row[_PID] = os.getpid()
        self._share()

    def lead(self) -> None:
        """Count in the row of the workers' parent from now on. The parent serves no requests."""
        self._row = self._rows[-1]

    def know_routes(self, routes: Mapping[type[RequestHandler], str]) -> None:
        """Take the names of the routes; they must be the same in all processes.

        :arg routes: the route of each handler; requests to other handlers count as `OTHER`.
        :raises ValueError: when there are `MAX_ROUTES` or more: one place is for `OTHER`.
        """
        if len(routes) >= MAX_ROUTES:
            raise ValueError(f"more than {MAX_ROUTES - 1} routes")
        self._routes, self._route_of = (*routes.values(), OTHER), routes

    # Counting.

    def counted(self, visits: int, seconds: float) -> None:
        """Count the visits that one command has counted in Redis.

        :arg visits: how many visits.
        :arg seconds: from sending the command to its reply.
        """
        row = self._row
        row[_VISITS] += visits
        row[_ROUND_TRIP + bisect_left(SECONDS, seconds)] += 1
        row[_PER_COMMAND - 1] += seconds
        row[_PER_COMMAND + bisect_left(VISITS, visits)] += 1
        row[_DURATIONS - 1] += visits

    def uncounted(self, visits: int, reason: Reason) -> None:
        """Count visits that get no number."""
        self._row[_UNCOUNTED + REASONS.index(reason)] += visits

    def log_lines_dropped(self, lines: int) -> None:
        """Count lines that standard error did not take. Only one thread at a time may call it."""
        self._row[_LOG_LINES_DROPPED] += lines

    def answered(self, handler: RequestHandler) -> None:
        """Count a request that the application has answered, for Tornado's ``log_function``."""
        request = handler.request
        cell, durations = self._cells_of(type(handler), request.method, handler.get_status())  # type: ignore[arg-type]
        seconds = request.request_time()
        row = self._row
        row[cell] += 1
        row[durations + bisect_left(SECONDS, seconds)] += 1
        row[durations + _SUM] += seconds

    def _find_cells(
        self, handler: type[RequestHandler], method: str | None, code: int
    ) -> tuple[int, int]:
        """Return the places in a row of these requests and of the durations of their route."""
        of_route = self._routes.index(self._route_of.get(handler, OTHER))
        of_method = METHODS.index(method if method in METHODS else OTHER)
        of_code = CODES.index(str(code) if str(code) in CODES else OTHER)
        cell = _REQUESTS + (of_route * len(METHODS) + of_method) * len(CODES) + of_code
        return cell, _DURATIONS + of_route * _OF_A_ROUTE

    # Sharing. From time to time, each process writes its gauges into its row.

    def gauge(self, name: str, look: Callable[[], float]) -> None:
        """Take a function that returns the value of one of the `GAUGES`."""
        self._gauges[name] = look

    async def keep_sharing(self) -> None:
        """Share this process's gauges again and again, until the task is cancelled."""
        while True:
            self._share()
            await asyncio.sleep(SHARE_EVERY)

    def _share(self) -> None:
        for at, name in enumerate(GAUGES, _GAUGES):
            self._row[at] = self._gauges[name]() if name in self._gauges else 0

    def pids(self) -> list[int]:
        """Return the ids of the processes that serve."""
        return [int(row[_PID]) for row in self._rows if row[_PID]]

    def sums(self) -> dict[str, Values]:
        """Return the values of each metric, summed over all processes."""
        self._share()
        end = _REQUESTS + len(self._routes) * len(METHODS) * len(CODES)
        sums = [sum(cells) for cells in zip(*(row[:end] for row in self._rows), strict=True)]
        requests = zip(
            itertools.product(self._routes, METHODS, CODES), sums[_REQUESTS:], strict=True
        )
        serving = [row for row in self._rows if row[_PID]]
        gauges = {name: [row[at] for row in serving] for at, name in enumerate(GAUGES, _GAUGES)}
        # All processes have the same faults; another process's row may be older than this one.
        faults = self._row[_VISITS - len(FAULTS) : _VISITS]
        return {
            "visits": {(): [sums[_VISITS]]},
            "visits_uncounted": _by_label(REASONS, sums[_UNCOUNTED:_ROUND_TRIP]),
            "redis_up": {(): [min(gauges["redis_up"])]},
            "exactly_once": {(): [min(gauges["exactly_once"])]},
            "redis_roundtrip_seconds": {(): sums[_ROUND_TRIP:_PER_COMMAND]},
            "visits_per_command": {(): sums[_PER_COMMAND:_DURATIONS]},
            "requests": {labels: [number] for labels, number in requests if number},
            "request_seconds": {
                (route,): sums[begin : begin + _OF_A_ROUTE]
                for route, begin in zip(self._routes, itertools.count(_DURATIONS, _OF_A_ROUTE))
            },
            "connections": {(): [sum(gauges["connections"])]},
            "live_watchers": {(): [sum(gauges["live_watchers"])]},
            "log_lines_dropped": {(): [sums[_LOG_LINES_DROPPED]]},
            "faults": _by_label(FAULTS, faults),
        }


def _by_label(label: Sequence[str], values: Iterable[float]) -> Values:
    return {(one,): [value] for one, value in zip(label, values, strict=True)}
