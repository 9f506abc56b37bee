"""The metrics in Prometheus's formats.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily as Histogram
from prometheus_client.core import InfoMetricFamily as Info
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import generate_latest as written_as_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_1_0_0
from prometheus_client.openmetrics.exposition import generate_latest as written_as_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from watch.metrics import SECONDS, VISITS, Metrics, Values

#: The formats, by media type. A client that asks for none of them gets the first one.
FORMS: Mapping[str, Callable[[Collector], bytes]] = {
    CONTENT_TYPE_PLAIN_0_0_4: written_as_text,
    OPENMETRICS_1_0_0: written_as_openmetrics,
}


class _Family(NamedTuple):
    """What a metric is called, and what it means."""

    kind: type[Counter | Gauge | Histogram]
    name: str
    help: str
    labels: Sequence[str] = ()
    bounds: Sequence[float] = ()
    """The upper bounds of a histogram's buckets."""

    def of(self, values: Values) -> Metric:
        family = self.kind(f"friendlyhello_{self.name}", self.help, labels=self.labels)
        ends = [floatToGoString(bound) for bound in (*self.bounds, float("inf"))]
        for labels, (*numbers, value) in values.items():
            if isinstance(family, Histogram):
                buckets = zip(ends, accumulate(numbers), strict=True)
                family.add_metric(labels, list(buckets), value)
            else:
                family.add_metric(labels, value)
        return family


_FAMILIES = (
    _Family(Counter, "visits", "Visits that got a number from Redis."),
    _Family(Counter, "visits_uncounted", "Visits that got no number.", labels=["reason"]),
    _Family(Gauge, "redis_up", "Whether the counter is on, in every process."),
    _Family(
        Gauge,
        "exactly_once",
        "Whether visits count exactly once, in every process; else at most once.",
    ),
    _Family(
        Histogram,
        "redis_roundtrip_seconds",
        "Seconds from a command that counts to its reply.",
        bounds=SECONDS,
    ),
    _Family(Histogram, "visits_per_command", "Visits that one command counted.", bounds=VISITS),
    _Family(
        Counter, "requests", "Requests that were answered.", labels=["route", "method", "code"]
    ),
    _Family(
        Histogram,
        "request_seconds",
        "Seconds from a request's head to the end of its answer.",
        labels=["route"],
        bounds=SECONDS,
    ),
    _Family(Gauge, "connections", "Connections of clients that are open."),
    _Family(Gauge, "live_watchers", "Clients that read /live/events."),
    _Family(Counter, "log_lines_dropped", "Log lines that standard error did not take."),
    _Family(Gauge, "faults", "Whether the replica has this fault.", labels=["kind"]),
)


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
        yield Info(
            "friendlyhello",
            "The label of the version, the program's version, and the replica's labels.",
            value=self._metrics.info,
        )
        sums = self._metrics.sums()
        for family in _FAMILIES:
            yield family.of(sums[family.name])
        yield from _of_processes(self._metrics.pids())


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
