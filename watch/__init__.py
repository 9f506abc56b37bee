"""What is told of the program: metrics, logs, traces, and the figures of the live page.

`watch.exposition` and `watch.tracing` are imported by themselves, as the one's library takes 10 ms
of the start, and the other's is not always installed.
"""

from watch.broadcast import Broadcast
from watch.logs import configure_logs, log_request
from watch.metrics import FAULTS, Metrics

__all__ = ["FAULTS", "Broadcast", "Metrics", "configure_logs", "log_request"]
