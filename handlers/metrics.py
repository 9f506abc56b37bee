"""``GET /metrics``: what Prometheus is told."""

import logging
import math
import time
from collections.abc import Mapping
from typing import ClassVar

from handlers.accept import preferred
from handlers.base import BaseHandler
from watch import Metrics

#: Seconds for which a text is told again: to write it takes milliseconds, and to count the
#: process's descriptors longer the more clients there are.
TEXT_SECONDS = 1.0

#: The last text of each form, and when it was made, on the monotonic clock.
Texts = dict[str, tuple[float, bytes]]


class MetricsHandler(BaseHandler):
    """Tells what has been counted, in the form that the scraper prefers."""

    LOG_LEVEL = logging.DEBUG
    HEADERS: ClassVar[Mapping[str, str]] = {**BaseHandler.HEADERS, "Vary": "Accept"}

    def initialize(self, metrics: Metrics, texts: Texts) -> None:
        """Take what is told, and where the last texts are kept."""
        self.metrics = metrics
        self._texts = texts

    def get(self) -> None:
        """Answer Prometheus's text, or OpenMetrics for those who prefer it.

        https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        from watch.exposition import FORMS, Exposition  # its library takes 10 ms of the start

        content_type = preferred(self.request.headers.get("Accept", ""), tuple(FORMS))
        self.set_header("Content-Type", content_type)
        made, text = self._texts.get(content_type, (-math.inf, b""))
        if time.monotonic() - made >= TEXT_SECONDS:
            text = Exposition(self.metrics).written(content_type)
            self._texts[content_type] = time.monotonic(), text
        self.write(text)

    head = get
