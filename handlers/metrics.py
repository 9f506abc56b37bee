"""``GET /metrics``: what Prometheus is told."""

import logging
from collections.abc import Mapping
from typing import ClassVar

from handlers.accept import preferred
from handlers.base import BaseHandler
from watch import Metrics


class MetricsHandler(BaseHandler):
    """Tells what has been counted, in the form that the scraper prefers."""

    LOG_LEVEL = logging.DEBUG
    HEADERS: ClassVar[Mapping[str, str]] = {**BaseHandler.HEADERS, "Vary": "Accept"}

    def initialize(self, metrics: Metrics) -> None:
        """Take what is told."""
        self.metrics = metrics

    def get(self) -> None:
        """Answer Prometheus's text, or OpenMetrics for those who prefer it.

        https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        from watch.exposition import FORMS, Exposition  # its library takes 10 ms of the start

        content_type = preferred(self.request.headers.get("Accept", ""), tuple(FORMS))
        self.set_header("Content-Type", content_type)
        self.write(Exposition(self.metrics).written(content_type))

    head = get
