"""What each replica has counted and what happened to it, in Redis, for all to see.

Each process writes its `Figures` beside the visits that it counts, and reports the rest by
`Telling`. A `Reader` reads what all processes have written. The counter does not know this room.
This room knows the face of the counter.
"""

from replicas.figures import Figures
from replicas.keys import HISTORIES
from replicas.link import ElsewhereError, RefusedError
from replicas.marks import Mark, marks_of, versions_of
from replicas.reading import MAX_PROCESSES, Reader, Snapshot
from replicas.records import Record
from replicas.states import Replica, replicas_of
from replicas.telling import Telling
from replicas.turns import in_turns

__all__ = [
    "HISTORIES",
    "MAX_PROCESSES",
    "ElsewhereError",
    "Figures",
    "Mark",
    "Reader",
    "Record",
    "RefusedError",
    "Replica",
    "Snapshot",
    "Telling",
    "in_turns",
    "marks_of",
    "replicas_of",
    "versions_of",
]
