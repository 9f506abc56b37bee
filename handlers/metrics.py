"""``GET /metrics``: the metrics for Prometheus."""

import logging
import math
import time
from collections.abc import Mapping
from typing import ClassVar

from handlers.accept import preferred
from handlers.base import BaseHandler
from watch import Metrics

#: Seconds for which the handler sends the same text again. To write the text takes milliseconds,
#: and to count the process's descriptors takes longer the more clients there are.
TEXT_SECONDS = 1.0

#: For each form, when its last text was made (monotonic clock), and the text.
Texts = dict[str, tuple[float, bytes]]


class MetricsHandler(BaseHandler):
    """Answers with the metrics, in the form that the scraper prefers."""

    LOG_LEVEL = logging.DEBUG
    HEADERS: ClassVar[Mapping[str, str]] = {**BaseHandler.HEADERS, "Vary": "Accept"}

    def initialize(self, metrics: Metrics, texts: Texts) -> None:
        """Take the metrics, and the dict that keeps the last texts."""
        self.metrics = metrics
        self._texts = texts

    def get(self) -> None:
        """Answer in Prometheus's text format, or in OpenMetrics if the client prefers it.

        https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        from watch.exposition import FORMS, Exposition  # imported here, so that the start is faster

        content_type = preferred(self.request.headers.get("Accept", ""), tuple(FORMS))
        self.set_header("Content-Type", content_type)
        made, text = self._texts.get(content_type, (-math.inf, b""))
        if time.monotonic() - made >= TEXT_SECONDS:
            text = Exposition(self.metrics).written(content_type)
            self._texts[content_type] = time.monotonic(), text
        self.write(text)

    head = get
