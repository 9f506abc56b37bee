"""The visit counter: one integer in Redis, raised in batches, each within a deadline.

`Visits.count` gives a visit its number. The package imports nothing of the program around it: an
`Observer` is told what happens, and limits are arguments. `counter.embedded` runs a private
Valkey; it is imported by itself, as it needs a Unix system.
"""

from counter.statistics import HISTORY, RefusedError, Replica, Snapshot, StatisticsReader
from counter.visits import KEY, Observer, Reason, Visits

__all__ = [
    "HISTORY",
    "KEY",
    "Observer",
    "Reason",
    "RefusedError",
    "Replica",
    "Snapshot",
    "StatisticsReader",
    "Visits",
]
