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

    @property
    def status(self) -> str:
        """The replica's state: ``ready``, ``unready`` or ``draining``."""
        return "draining" if self.is_draining else "unready" if self._is_unready else "ready"

    @property
    def _details(self) -> dict[str, str]:
        visits = self.visits
        return {"reason": visits.reason, "refusal": visits.refusal, "warning": visits.warning}

    def get(self) -> None:
        """Answer 200; 503 from SIGTERM on, or when a fault makes the replica unready."""
        if self.status != "ready":
            self.set_status(503)
        self.finish_json(
            {
                "status": self.status,
                "redis": "up" if self.visits.up else "down",
                "counting": "exactly once" if self.visits.exactly_once else "at most once",
            }
            | {name: text for name, text in self._details.items() if text}
        )

    head = get
