"""What a process needs, whatever it serves: workers, a health check, messages at the exit."""

from process.healthcheck import check_health
from process.messages import fail, one_line
from process.signals import STOP_SIGNALS, Stopping
from process.workers import run_workers

__all__ = ["STOP_SIGNALS", "Stopping", "check_health", "fail", "one_line", "run_workers"]
