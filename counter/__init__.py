"""The visit counter: one integer in Redis, raised in batches, each within a deadline.

`Visits.count` gives a visit its number. The package imports nothing of the program around it: an
`Observer` is told what happens, and limits are arguments.
"""

from counter.marks import Mark, marks_of, versions_of
from counter.reading import RefusedError, Replica, Snapshot, StatisticsReader
from counter.statistics import HISTORIES
from counter.visits import KEY, Observer, Reason, Visits

__all__ = [
    "HISTORIES",
    "KEY",
    "Mark",
    "Observer",
    "Reason",
    "RefusedError",
    "Replica",
    "Snapshot",
    "StatisticsReader",
    "Visits",
    "marks_of",
    "versions_of",
]
