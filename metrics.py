"""What Prometheus is told: numbers that every worker process raises, and any of them can sum.

They are cells of memory that the processes share, a row for each slot of `workers.run`. Only the
process that has taken a slot writes its row, so that nothing is locked. The counters of a process
that died stay, since they must not go down; its gauges go.
"""

import asyncio
import functools
import http
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.utils import floatToGoString
from tornado.web import RequestHandler

#: Why a visit got no number: the counter was off, too many waited, Redis did not answer in time,
#: it answered with an error or not at all, the server was stopping.
REASONS = ("off", "crowded", "timeout", "error", "stopping")

#: What a label may say. Whatever a client asks for, it is one of these.
OTHER = "other"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", OTHER)
CODES = (*(str(status.value) for status in http.HTTPStatus if status >= 200), OTHER)

#: Paths that the routing table may list; the memory is shared out before it is known.
MOST_ROUTES = 16

#: Upper bounds of the histograms' buckets: seconds, and visits.
SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 2.5),
)
VISITS = tuple(2.0**power for power in range(14))

#: Seconds between two looks, for the other processes' sake.
LOOK_EVERY = 1.0

GAUGES = ("connections", "live_watchers", "redis_up")

# Where in a row what is. A histogram has a cell for each bucket, one for what is past the last,
# and one for the sum.
_PID = 0
_GAUGES = 1
_VISITS = _GAUGES + len(GAUGES)
_UNCOUNTED = _VISITS + 1
_ROUND_TRIP = _UNCOUNTED + len(REASONS)
_PER_COMMAND = _ROUND_TRIP + len(SECONDS) + 2
_REQUESTS = _PER_COMMAND + len(VISITS) + 2
_CODES_OF_A_ROUTE = len(METHODS) * len(CODES)
_ROUTE = _CODES_OF_A_ROUTE + len(SECONDS) + 2
_END = _REQUESTS + MOST_ROUTES * _ROUTE


class Metrics:
    """Counts, and tells what all processes have counted; a `prometheus_client` collector.

    :arg version: the label of the version that runs.
    :arg processes: how many there will be; each takes a slot once it has been forked.
    """

    def __init__(self, version: str = "", processes: int = 1) -> None:
        memory = memoryview(mmap.mmap(-1, processes * _END * 8)).cast("d")
        self._rows = [memory[at : at + _END] for at in range(0, processes * _END, _END)]
        self._version = version
        self._routes: tuple[str, ...] = (OTHER,)
        self._match: Callable[[str], str | None] = lambda path: None
        self._answers: dict[tuple[str, str, str], list[float]] = {}
        self._known: dict[tuple[str, str | None, int], list[float]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self.take(0)

    def take(self, slot: int) -> None:
        """Count in a slot from now on, whose process has died if it had one."""
        self._row = self._rows[slot]
        self._row[_PID] = os.getpid()
        self._look()

    def know_routes(self, routes: Sequence[str], match: Callable[[str], str | None]) -> None:
        """Take the names that requests are counted by, alike in all processes.

        :arg match: tells which of them a path belongs to, if any.
        :raises ValueError: when there are more than `MOST_ROUTES`, one less for all others.
        """
        if len(routes) >= MOST_ROUTES:
            raise ValueError(f"more than {MOST_ROUTES - 1} routes")
        self._routes, self._match = (*routes, OTHER), match

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

    def uncounted(self, visits: int, reason: str) -> None:
        """Count visits that get no number.

        :arg reason: one of `REASONS`.
        """
        self._row[_UNCOUNTED + REASONS.index(reason)] += visits

    def answered(self, handler: RequestHandler) -> None:
        """Count a request that the application has answered; Tornado's ``log_function``."""
        request = handler.request
        asked = (request.path, request.method, handler.get_status())
        durations = self._known.get(asked) or self._find(*asked)
        seconds = request.request_time()
        # A list of our own, until the next look: half as much as in shared memory.
        durations[bisect_left(SECONDS, seconds)] += 1
        durations[-1] += seconds

    def _find(self, path: str, method: str | None, code: int) -> list[float]:
        """Return where the durations of such requests go."""
        route = self._match(path) or OTHER
        labels = (
            route,
            method if method in METHODS else OTHER,
            str(code) if str(code) in CODES else OTHER,
        )
        durations = self._answers.setdefault(labels, [0.0] * (len(SECONDS) + 2))
        if route == path:  # a client cannot fill the memory with paths of its own
            self._known[path, labels[1], code] = durations
        return durations

    # What the other processes are to know, from time to time: gauges, which are looked at and not
    # kept up to date where they change, and the requests.

    def gauge(self, name: str, look: Callable[[], float]) -> None:
        """Take the way to one of the `GAUGES`."""
        self._gauges[name] = look

    async def keep_looking(self) -> None:
        """Let the other processes know of this one, until it is cancelled."""
        while True:
            self._look()
            await asyncio.sleep(LOOK_EVERY)

    def _look(self) -> None:
        for at, name in enumerate(GAUGES, _GAUGES):
            self._row[at] = self._gauges[name]() if name in self._gauges else 0
        for (route, method, code), durations in self._answers.items():
            begin = _REQUESTS + self._routes.index(route) * _ROUTE
            cell = begin + METHODS.index(method) * len(CODES) + CODES.index(code)
            self._row[cell] += sum(durations[:-1])
            durations[-1] = max(durations[-1], 0.0)  # the clock may be set back
            for at, number in enumerate(durations, begin + _CODES_OF_A_ROUTE):
                self._row[at] += number
            durations[:] = [0.0] * len(durations)

    # Telling.

    def collect(self) -> Iterator[Metric]:
        """Return what all processes have counted."""
        self._look()
        end = _REQUESTS + len(self._routes) * _ROUTE
        sums = [sum(cells) for cells in zip(*(row[:end] for row in self._rows), strict=True)]
        running = [row for row in self._rows if row[_PID]]

        yield InfoMetricFamily(
            "friendlyhello", "The version's label.", value={"version": self._version}
        )
        yield CounterMetricFamily(
            "friendlyhello_visits", "Visits that got a number of Redis.", value=sums[_VISITS]
        )
        uncounted = CounterMetricFamily(
            "friendlyhello_visits_uncounted", "Visits that got no number.", labels=["reason"]
        )
        for at, reason in enumerate(REASONS, _UNCOUNTED):
            uncounted.add_metric([reason], sums[at])
        yield uncounted
        yield GaugeMetricFamily(
            "friendlyhello_redis_up",
            "Whether the counter is on, in every process.",
            value=min(row[_GAUGES + GAUGES.index("redis_up")] for row in running),
        )
        yield _histogram(
            "friendlyhello_redis_roundtrip_seconds",
            "Seconds from a command that counts to its reply.",
            SECONDS,
            {(): sums[_ROUND_TRIP:_PER_COMMAND]},
        )
        yield _histogram(
            "friendlyhello_visits_per_command",
            "Visits that one command counted.",
            VISITS,
            {(): sums[_PER_COMMAND:_REQUESTS]},
        )
        yield from self._collect_requests(sums)
        for name, help in (
            ("connections", "Connections of clients that are open."),
            ("live_watchers", "Those who have /live/events open."),
        ):
            yield GaugeMetricFamily(
                f"friendlyhello_{name}", help, value=self._sum_of(name, running)
            )
        yield from _of_processes([int(row[_PID]) for row in running])

    def _collect_requests(self, sums: Sequence[float]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "friendlyhello_requests",
            "Requests that were answered.",
            labels=["route", "method", "code"],
        )
        durations: dict[tuple[str, ...], Sequence[float]] = {}
        for at, route in enumerate(self._routes):
            begin = _REQUESTS + at * _ROUTE
            durations[(route,)] = sums[begin + _CODES_OF_A_ROUTE : begin + _ROUTE]
            for cell, number in enumerate(sums[begin : begin + _CODES_OF_A_ROUTE]):
                if number:
                    method, code = divmod(cell, len(CODES))
                    requests.add_metric([route, METHODS[method], CODES[code]], number)
        yield requests
        yield _histogram(
            "friendlyhello_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            SECONDS,
            durations,
            ["route"],
        )

    @staticmethod
    def _sum_of(gauge: str, rows: "Sequence[memoryview[float]]") -> float:
        return sum(row[_GAUGES + GAUGES.index(gauge)] for row in rows)


def _histogram(
    name: str,
    help: str,
    bounds: Sequence[float],
    cells: Mapping[tuple[str, ...], Sequence[float]],
    labels: Sequence[str] = (),
) -> Metric:
    """Return a histogram.

    :arg cells: by the values of the labels, what each bucket has got, and the sum.
    """
    family = HistogramMetricFamily(name, help, labels=labels)
    ends = [floatToGoString(bound) for bound in (*bounds, float("inf"))]
    for values, (*numbers, total) in cells.items():
        buckets = zip(ends, accumulate(numbers), strict=True)
        family.add_metric(values, list(buckets), total)
    return family


def _of_processes(pids: Sequence[int]) -> Iterator[Metric]:
    """Return what `prometheus_client` tells of a process, for all of them as one.

    That is the sum, but of two things: the first one's start, and what each may open.
    """
    collected: dict[str, list[Metric]] = {}
    for pid in pids:
        for metric in ProcessCollector(pid=functools.partial(str, pid), registry=None).collect():
            collected.setdefault(metric.name, []).append(metric)
    for name, (one, *others) in collected.items():
        values = [metric.samples[0].value for metric in (one, *others)]
        only = name in ("process_start_time_seconds", "process_max_fds")
        total = min(values) if only else sum(values)
        one.samples = [one.samples[0]._replace(value=total)]
        yield one
