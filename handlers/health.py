"""``GET /healthz`` and ``GET /readyz``: what an orchestrator asks."""

import logging

from counter import Visits
from handlers.base import BaseHandler
from handlers.faults import SharedFaults


class HealthHandler(BaseHandler):
    """Alive: the event loop turns. Never touches Redis."""

    LOG_LEVEL = logging.DEBUG

    def initialize(self, faults: SharedFaults | None = None) -> None:
        """Take what is wrong with the replica, where anything may be."""
        self._is_dead = faults is not None and not faults.get().alive

    def get(self) -> None:
        """Answer 200, or 503 when it is to seem dead."""
        if self._is_dead:
            self.set_status(503)
        self.finish_json({"status": "dead" if self._is_dead else "ok"})

    head = get


class ReadyHandler(BaseHandler):
    """Ready for visits until the server is asked to stop, with Redis or without."""

    LOG_LEVEL = logging.DEBUG

    def initialize(self, visits: Visits, faults: SharedFaults | None = None) -> None:
        """Take the counter, whose state is shown, and what is wrong, where anything may be."""
        self.visits = visits
        self._is_unready = faults is not None and not faults.get().ready

    @property
    def status(self) -> str:
        """What the replica is."""
        return "draining" if self.is_draining else "unready" if self._is_unready else "ready"

    @property
    def _details(self) -> dict[str, str]:
        visits = self.visits
        return {"reason": visits.reason, "refusal": visits.refusal, "warning": visits.warning}

    def get(self) -> None:
        """Answer 200, or 503 from SIGTERM on, and when it is to seem unready."""
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
