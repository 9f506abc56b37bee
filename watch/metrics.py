"""What is counted besides visits: numbers that every process raises, and any of them can sum.

They are cells of memory that the processes share: a row for each slot of `run_workers`, and one for
the workers' parent. Only the process that has taken a row writes it, so that nothing is locked. The
counters of a process that died stay, since they must not go down; its gauges go.
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

#: What a label may say. Whatever a client asks for, it is one of these.
OTHER = "other"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", OTHER)
CODES = (*(str(status.value) for status in http.HTTPStatus if status >= 200), OTHER)

#: Routes that there may be; the memory is shared out before they are known.
MAX_ROUTES = 16

#: Upper bounds of the histograms' buckets: seconds, and visits.
SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 2.5),
)
VISITS = tuple(2.0**power for power in range(14))

#: Seconds between two times that a process shares what it has counted.
SHARE_EVERY = 1.0

#: What --faults may make of a replica, in all its processes.
FAULTS = ("sick", "unready", "dead", "busy", "heavy")

GAUGES = ("connections", "live_watchers", "redis_up", "exactly_once", *FAULTS)

# Where in a row what is. A histogram has a cell for each bucket, one for what is past the last,
# and one for the sum.
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
    """What all processes have counted.

    Of a histogram there is what each bucket has got, one past the last bound, and the sum.

    :arg info: the label of the version that runs, the program's version, and the replica's labels.
    :arg visits: those that got a number.
    :arg uncounted: those that got none, by reason.
    :arg round_trip: histogram, by `SECONDS`.
    :arg per_command: histogram, by `VISITS`.
    :arg requests: by route, method and code.
    :arg request_seconds: histograms by `SECONDS`, by route.
    :arg redis_up: whether the counter is on, in every process.
    :arg exactly_once: whether visits count exactly once, in every process; else at most once.
    :arg connections: of clients, open.
    :arg live_watchers: of ``/live/events``.
    :arg log_lines_dropped: lines that standard error did not take.
    :arg faults: whether the replica is each of the `FAULTS`.
    :arg pids: the processes'.
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
    """Counts, and sums what all processes have counted.

    :arg version: the label of the version that runs.
    :arg processes: how many there will be; each takes a slot once it has been forked.
    :arg labels: those of the replica.
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
        self._answers: dict[tuple[str, str, str], list[float]] = {}
        # Bounded: a client may make methods up.
        self._durations_of = functools.lru_cache(maxsize=256)(self._find_durations)
        self._gauges: dict[str, Callable[[], float]] = {}
        self.take(0)

    def take(self, slot: int) -> None:
        """Count in a slot from now on, whose process has died if it had one."""
        self._row = self._rows[slot]
        self._row[_PID] = os.getpid()
        self._share()

    def lead(self) -> None:
        """Count in the row of the workers' parent from now on, which is none that serves."""
        self._row = self._rows[-1]

    def know_routes(self, routes: Mapping[type[RequestHandler], str]) -> None:
        """Take the names that requests are counted by, alike in all processes.

        :arg routes: the route of each handler; requests to any other are of the route `OTHER`.
        :raises ValueError: when there are more than `MAX_ROUTES`, one less for all others.
        """
        if len(routes) >= MAX_ROUTES:
            raise ValueError(f"more than {MAX_ROUTES - 1} routes")
        self._routes, self._route_of = (*routes.values(), OTHER), routes

    # Counting.

    def counted(self, visits: int, seconds: float) -> None:
        """Count visits that Redis has counted with one command.

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
        """Count lines that standard error did not take; by one thread at a time."""
        self._row[_LOG_LINES_DROPPED] += lines

    def answered(self, handler: RequestHandler) -> None:
        """Count a request that the application has answered; Tornado's ``log_function``."""
        request = handler.request
        durations = self._durations_of(type(handler), request.method, handler.get_status())  # type: ignore[arg-type]
        seconds = request.request_time()
        # A list of our own, until it is shared: half as much as in shared memory.
        durations[bisect_left(SECONDS, seconds)] += 1
        durations[-1] += seconds

    def _find_durations(
        self, handler: type[RequestHandler], method: str | None, code: int
    ) -> list[float]:
        """Return where the durations of such requests go."""
        labels = (
            self._route_of.get(handler, OTHER),
            method if method in METHODS else OTHER,
            str(code) if str(code) in CODES else OTHER,
        )
        return self._answers.setdefault(labels, [0.0] * (len(SECONDS) + 2))

    # What the other processes are to know, from time to time: gauges, which are looked at and not
    # kept up to date where they change, and the requests.

    def gauge(self, name: str, look: Callable[[], float]) -> None:
        """Take the way to one of the `GAUGES`."""
        self._gauges[name] = look

    async def keep_sharing(self) -> None:
        """Share what this process has counted, again and again, until it is cancelled."""
        while True:
            self._share()
            await asyncio.sleep(SHARE_EVERY)

    def _share(self) -> None:
        for at, name in enumerate(GAUGES, _GAUGES):
            self._row[at] = self._gauges[name]() if name in self._gauges else 0
        for (route, method, code), durations in self._answers.items():
            begin = _REQUESTS + self._routes.index(route) * _ROUTE
            cell = begin + METHODS.index(method) * len(CODES) + CODES.index(code)
            self._row[cell] += sum(durations[:-1])
            for at, number in enumerate(durations, begin + _CODES_OF_A_ROUTE):
                self._row[at] += number
            durations[:] = [0.0] * len(durations)

    def sums(self) -> Sums:
        """Return what all processes have counted."""
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
            # Alike in all; another's row may be older.
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
