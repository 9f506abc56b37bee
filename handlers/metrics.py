"""``GET /metrics``: what Prometheus is told."""

import logging
from collections.abc import Mapping
from typing import ClassVar

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
        """Answer Prometheus's text, or OpenMetrics for those who ask for it.

        https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        from watch.exposition import Exposition  # here, as its library takes 10 ms of the start

        text, content_type = Exposition(self.metrics).written(
            self.request.headers.get("Accept", "")
        )
        self.set_header("Content-Type", content_type)
        self.write(text)

    head = get
