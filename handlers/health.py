"""``GET /healthz`` and ``GET /readyz``: the checks of an orchestrator."""

import logging

from counter import Visits
from handlers.base import BaseHandler
from handlers.faults import SharedFaults


class HealthHandler(BaseHandler):
    """Answers as long as the event loop turns. It never asks Redis."""

    LOG_LEVEL = logging.DEBUG

    def initialize(self, faults: SharedFaults | None = None) -> None:
        """Take the replica's faults; None without ``--faults``."""
        self._is_dead = faults is not None and not faults.get().alive

    def get(self) -> None:
        """Answer 200, or 503 when a fault makes the replica look dead."""
        if self._is_dead:
            self.set_status(503)
        self.finish_json({"status": "dead" if self._is_dead else "ok"})

    head = get


class ReadyHandler(BaseHandler):
    """Answers that the replica is ready, with or without Redis, until the server has to stop."""

    LOG_LEVEL = logging.DEBUG

    def initialize(self, visits: Visits, faults: SharedFaults | None = None) -> None:
        """Take the counter, whose state the answer shows, and the replica's faults."""
        self.visits = visits
        self._is_unready = faults is not None and not faults.get().ready

    def get(self) -> None:
        """Answer 200; 503 from SIGTERM on, or when a fault makes the replica unready."""
        status = "draining" if self.is_draining else "unready" if self._is_unready else "ready"
        if status != "ready":
            self.set_status(503)
        visits = self.visits
        told = {
            "status": status,
            "redis": "up" if visits.up else "down",
            "counting": "exactly once" if visits.exactly_once else "at most once",
            "reason": visits.reason,
            "refusal": visits.refusal,
            "warning": visits.warning,
        }
        self.finish_json({name: text for name, text in told.items() if text})

    head = get
