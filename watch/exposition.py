"""The metrics in Prometheus's formats.

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

#: The formats, by media type. A client that asks for none of them gets the first one.
FORMS: Mapping[str, Callable[[Collector], bytes]] = {
    CONTENT_TYPE_PLAIN_0_0_4: written_as_text,
    OPENMETRICS_1_0_0: written_as_openmetrics,
}


class Exposition:
    """A `prometheus_client` collector.

    :arg metrics: the metrics to write.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def written(self, content_type: str) -> bytes:
        """Return the present metrics, in one of the `FORMS`."""
        return FORMS[content_type](self)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of all processes."""
        sums = self._metrics.sums()
        yield InfoMetricFamily(
            "friendlyhello",
            "The label of the version, the program's version, and the replica's labels.",
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
            "friendlyhello_faults", "Whether the replica has this fault.", labels=["kind"]
        )
        for kind, is_so in sums.faults.items():
            faults.add_metric([kind], is_so)
        yield faults
        yield from _of_processes(sums.pids)


def _of_visits(sums: Sums) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "friendlyhello_visits", "Visits that got a number from Redis.", value=sums.visits
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
        "Clients that read /live/events.",
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

    :arg bounds: the upper bounds of its buckets.
    :arg cells: for each set of label values, the count of each bucket, and then the sum.
    """
    family = HistogramMetricFamily(name, help, labels=labels)
    ends = [floatToGoString(bound) for bound in (*bounds, float("inf"))]
    for values, (*numbers, total) in cells.items():
        buckets = zip(ends, accumulate(numbers), strict=True)
        family.add_metric(values, list(buckets), total)
    return family


def _of_processes(pids: Sequence[int]) -> Iterator[Metric]:
    """Return `prometheus_client`'s metrics of a process, summed over all processes.

    Two metrics are not sums but the least of all: the start time, and the limit of descriptors.
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
