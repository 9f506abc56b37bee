"""What operators see of the program: metrics, logs, traces, and the figures of the live page.

Other packages import `watch.exposition` and `watch.tracing` by themselves: the library of
`exposition` slows the start, and the library of `tracing` is not always installed.
"""

from watch.broadcast import Broadcast
from watch.logs import configure_logs, log_request
from watch.metrics import FAULTS, Metrics

__all__ = ["FAULTS", "Broadcast", "Metrics", "configure_logs", "log_request"]
