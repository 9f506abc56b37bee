"""The visit counter: one integer in Redis, raised in batches, each within a deadline.

`Visits.count` gives a visit its number. The package imports nothing of the program around it: an
`Observer` is told what happens, and limits are arguments. `counter.embedded` runs a private
Valkey; it is imported by itself, as it needs a Unix system.
"""

from counter.connection import packed
from counter.connector import Connector
from counter.redis_internals import take_over
from counter.visits import KEY, Beside, Observer, Reason, Visits, process_key

__all__ = [
    "KEY",
    "Beside",
    "Connector",
    "Observer",
    "Reason",
    "Visits",
    "packed",
    "process_key",
    "take_over",
]
