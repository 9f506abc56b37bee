"""The metrics: every process counts, and any process can sum the counts of all.

The counts are cells of memory that the processes share. There is a row for each slot of
`Workers`, and one row for the workers' parent. Only the process that has taken a row writes
it, so there are no locks. When a process dies, its counters stay, because a counter must never go
down; the process that takes its row next replaces its gauges.
"""

import asyncio
import functools
import http
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

# The place of each count in a row. A histogram has a cell for each bucket, one for values past
# the last bound, and one for the sum.
_SUM = len(SECONDS) + 1
_PID = 0
_GAUGES = 1
_VISITS = _GAUGES + len(GAUGES)
_LOG_LINES_DROPPED = _VISITS + 1
_UNCOUNTED = _LOG_LINES_DROPPED + 1
_ROUND_TRIP = _UNCOUNTED + len(REASONS)
_PER_COMMAND = _ROUND_TRIP + len(SECONDS) + 2
_REQUESTS = _PER_COMMAND + len(VISITS) + 2
_CODES_OF_A_ROUTE = len(METHODS) * len(CODES)
_ROUTE = _CODES_OF_A_ROUTE + len(SECONDS) + 2
_END = _REQUESTS + MAX_ROUTES * _ROUTE


@dataclass(frozen=True)
class Sums:
    """The counts of all processes, summed.

    A histogram is the count of each bucket, then the count past the last bound, then the sum.

    :arg info: the label of the version that runs, the program's version, and the replica's labels.
    :arg visits: visits that got a number.
    :arg uncounted: visits that got no number, by reason.
    :arg round_trip: seconds from a command to its reply; a histogram by `SECONDS`.
    :arg per_command: visits that one command counted; a histogram by `VISITS`.
    :arg requests: requests by route, method and code.
    :arg request_seconds: for each route, the seconds of its requests; histograms by `SECONDS`.
    :arg redis_up: whether the counter is on, in every process.
    :arg exactly_once: whether visits count exactly once, in every process; else at most once.
    :arg connections: open connections of clients.
    :arg live_watchers: clients that read ``/live/events``.
    :arg log_lines_dropped: lines that standard error did not take.
    :arg faults: for each of the `FAULTS`, whether the replica has it.
    :arg pids: the process ids.
    """

    info: Mapping[str, str]
    visits: float
    uncounted: Mapping[str, float]
    round_trip: Sequence[float]
    per_command: Sequence[float]
    requests: Mapping[tuple[str, str, str], float]
    request_seconds: Mapping[str, Sequence[float]]
    redis_up: float
    exactly_once: float
    connections: float
    live_watchers: float
    log_lines_dropped: float
    faults: Mapping[str, float]
    pids: Sequence[int]


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
        self._info = {"version": version, "program_version": VERSION, **(labels or {})}
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
        row[_REQUESTS - 1] += visits

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
        begin = _REQUESTS + self._routes.index(self._route_of.get(handler, OTHER)) * _ROUTE
        of_method = METHODS.index(method if method in METHODS else OTHER)
        of_code = CODES.index(str(code) if str(code) in CODES else OTHER)
        return begin + of_method * len(CODES) + of_code, begin + _CODES_OF_A_ROUTE

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

    def sums(self) -> Sums:
        """Return the counts of all processes."""
        self._share()
        end = _REQUESTS + len(self._routes) * _ROUTE
        sums = [sum(cells) for cells in zip(*(row[:end] for row in self._rows), strict=True)]
        running = [row for row in self._rows if row[_PID]]
        requests, request_seconds = self._requests(sums)
        connections, live_watchers, redis_up, exactly_once, *_ = (
            [row[at] for row in running] for at in range(_GAUGES, _VISITS)
        )
        return Sums(
            info=self._info,
            visits=sums[_VISITS],
            uncounted=dict(zip(REASONS, sums[_UNCOUNTED:_ROUND_TRIP], strict=True)),
            round_trip=sums[_ROUND_TRIP:_PER_COMMAND],
            per_command=sums[_PER_COMMAND:_REQUESTS],
            requests=requests,
            request_seconds=request_seconds,
            redis_up=min(redis_up),
            exactly_once=min(exactly_once),
            connections=sum(connections),
            live_watchers=sum(live_watchers),
            log_lines_dropped=sums[_LOG_LINES_DROPPED],
            # All processes have the same faults; another process's row may be older than this one.
            faults=dict(zip(FAULTS, self._row[_VISITS - len(FAULTS) : _VISITS], strict=True)),
            pids=[int(row[_PID]) for row in running],
        )

    def _requests(
        self, sums: Sequence[float]
    ) -> tuple[dict[tuple[str, str, str], float], dict[str, Sequence[float]]]:
        requests = {}
        seconds: dict[str, Sequence[float]] = {}
        for route, begin in zip(self._routes, range(_REQUESTS, len(sums), _ROUTE), strict=True):
            seconds[route] = sums[begin + _CODES_OF_A_ROUTE : begin + _ROUTE]
            for cell, number in enumerate(sums[begin : begin + _CODES_OF_A_ROUTE]):
                if number:
                    method, code = divmod(cell, len(CODES))
                    requests[route, METHODS[method], CODES[code]] = number
        return requests, seconds
