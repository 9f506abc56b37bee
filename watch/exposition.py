"""What Prometheus is told, in its own words.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import generate_latest as written_as_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_1_0_0
from prometheus_client.openmetrics.exposition import generate_latest as written_as_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from watch.metrics import SECONDS, VISITS, Metrics, Sums

#: The forms that are written, by their media types; the first one is for those who ask for none.
FORMS: Mapping[str, Callable[[Collector], bytes]] = {
    CONTENT_TYPE_PLAIN_0_0_4: written_as_text,
    OPENMETRICS_1_0_0: written_as_openmetrics,
}


class Exposition:
    """A `prometheus_client` collector.

    :arg metrics: what is told.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def written(self, content_type: str) -> bytes:
        """Return what is told now, in one of the `FORMS`."""
        return FORMS[content_type](self)

    def collect(self) -> Iterator[Metric]:
        """Return what all processes have counted."""
        sums = self._metrics.sums()
        yield InfoMetricFamily(
            "friendlyhello",
            "The version's label, the program's version, and the replica's labels.",
            value=dict(sums.info),
        )
        yield from _of_visits(sums)
        yield from _of_requests(sums)
        yield CounterMetricFamily(
            "friendlyhello_log_lines_dropped",
            "Log lines that standard error did not take.",
            value=sums.log_lines_dropped,
        )
        faults = GaugeMetricFamily(
            "friendlyhello_faults", "Whether --faults makes the replica so.", labels=["kind"]
        )
        for kind, is_so in sums.faults.items():
            faults.add_metric([kind], is_so)
        yield faults
        yield from _of_processes(sums.pids)


def _of_visits(sums: Sums) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "friendlyhello_visits", "Visits that got a number of Redis.", value=sums.visits
    )
    uncounted = CounterMetricFamily(
        "friendlyhello_visits_uncounted", "Visits that got no number.", labels=["reason"]
    )
    for reason, number in sums.uncounted.items():
        uncounted.add_metric([reason], number)
    yield uncounted
    yield GaugeMetricFamily(
        "friendlyhello_redis_up",
        "Whether the counter is on, in every process.",
        value=sums.redis_up,
    )
    yield GaugeMetricFamily(
        "friendlyhello_exactly_once",
        "Whether visits count exactly once, in every process; else at most once.",
        value=sums.exactly_once,
    )
    yield _histogram(
        "friendlyhello_redis_roundtrip_seconds",
        "Seconds from a command that counts to its reply.",
        SECONDS,
        {(): sums.round_trip},
    )
    yield _histogram(
        "friendlyhello_visits_per_command",
        "Visits that one command counted.",
        VISITS,
        {(): sums.per_command},
    )


def _of_requests(sums: Sums) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "friendlyhello_requests",
        "Requests that were answered.",
        labels=["route", "method", "code"],
    )
    for labels, number in sums.requests.items():
        requests.add_metric(labels, number)
    yield requests
    yield _histogram(
        "friendlyhello_request_seconds",
        "Seconds from a request's head to the end of its answer.",
        SECONDS,
        {(route,): cells for route, cells in sums.request_seconds.items()},
        ["route"],
    )
    yield GaugeMetricFamily(
        "friendlyhello_connections",
        "Connections of clients that are open.",
        value=sums.connections,
    )
    yield GaugeMetricFamily(
        "friendlyhello_live_watchers",
        "Those who have /live/events open.",
        value=sums.live_watchers,
    )


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
