"""The visit counter: one integer in Redis. A batch of visits raises it, within a deadline.

`Visits.count` gives a visit its number. The package imports nothing of the program around it. The
counter tells an `Observer` what happens, and limits are arguments.
"""

from counter.connection import packed
from counter.connector import Connector
from counter.delivery import is_refusal
from counter.redis_internals import take_over
from counter.roles import Beside, Observer, Reason
from counter.tokens import KEY, process_key
from counter.visits import Visits

__all__ = [
    "KEY",
    "Beside",
    "Connector",
    "Observer",
    "Reason",
    "Visits",
    "is_refusal",
    "packed",
    "process_key",
    "take_over",
]
