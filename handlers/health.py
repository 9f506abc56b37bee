"""``GET /healthz`` and ``GET /readyz``: what an orchestrator asks."""

import logging

from counter import Visits
from handlers.base import BaseHandler


class HealthHandler(BaseHandler):
    """Alive: the event loop turns. Never touches Redis."""

    LOG_LEVEL = logging.DEBUG

    def get(self) -> None:
        """Answer 200."""
        self.finish_json({"status": "ok"})

    head = get


class ReadyHandler(BaseHandler):
    """Ready for visits until the server is asked to stop, with Redis or without."""

    LOG_LEVEL = logging.DEBUG

    def initialize(self, visits: Visits) -> None:
        """Take the counter, whose state is shown."""
        self.visits = visits

    def get(self) -> None:
        """Answer 200, or 503 from SIGTERM on."""
        if self.draining:
            self.set_status(503)
        self.finish_json(
            {
                "status": "draining" if self.draining else "ready",
                "redis": "up" if self.visits.up else "down",
                "counting": "exactly once" if self.visits.exactly_once else "at most once",
            }
            | ({"reason": self.visits.reason} if self.visits.reason else {})
        )

    head = get
