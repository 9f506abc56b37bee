"""The keys in Redis.

All keys have the counter's name as their hash tag, so they lie in the counter's slot. The node that
counts runs their commands, too
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).

===========================  ===================================================================
``{counter}:process:ID``     a hash, the record of a process. The counter writes ``visits``: how
                             many the process has shown. `replicas.figures` writes the
                             ``hostname`` and the ``labels`` (``key=value,…``) of the replica,
                             the ``version`` that the process runs, when it ``started``, and
                             ``marked``: the time of its last sign with visits, and how many
                             visits it had shown before. `replicas.telling` writes the rest.
                             Redis deletes the record after a day without a sign, or up to an hour
                             later.
``{counter}:processes``      a sorted set, the names: the ids of the processes. The score of each
                             is the time of its last sign.
``{counter}:last:5m``,       hashes, one for each of the `HISTORIES`. A field holds one step: the
``…:1h``, ``…:1d``           second at which the step began, and the visits shown in it by version,
                             as in ``1764220000 1.0=12 1.1=3``. Versions are percent-encoded.
===========================  ===================================================================

Times are seconds since 1970, by Redis's clock. When Redis refuses scripts, they are by the clock of
the machine that writes.
"""

from collections.abc import Mapping
from typing import NamedTuple

from counter import KEY

#: Seconds after which Redis forgets a process that gave no sign.
DAY = 24 * 60 * 60

#: The ids of the processes.
NAMES = f"{{{KEY}}}:processes"


class History(NamedTuple):
    """A history of visits: how long it goes back, and how exactly."""

    step: int
    """The seconds of a step. The history knows the visits of each step."""
    steps: int
    """How many steps it has. A new step takes the place of the oldest."""


#: The histories. The name of each is its length.
HISTORIES: Mapping[str, History] = {
    "5m": History(2, 150),
    "1h": History(30, 120),
    "1d": History(600, 144),
}


def history_key(last: str) -> str:
    """Return the key of one of the `HISTORIES`."""
    return f"{{{KEY}}}:last:{last}"
