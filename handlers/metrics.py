"""``GET /metrics``: what Prometheus is told."""

import logging
from collections.abc import Mapping
from typing import ClassVar

from prometheus_client.exposition import choose_encoder

from handlers.base import BaseHandler
from metrics import Metrics


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
        try:
            encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        self.set_header("Content-Type", content_type)
        self.write(encode(self.metrics))

    head = get
