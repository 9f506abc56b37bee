"""What a process needs, whatever it serves: workers, a health check, messages at the exit."""

from process.healthcheck import check_health
from process.messages import fail, one_line
from process.workers import STOP_SIGNALS, run_workers

__all__ = ["STOP_SIGNALS", "check_health", "fail", "one_line", "run_workers"]
