"""Where it stands in Redis.

All keys have the counter's name as their hash tag, so that they lie in its slot and go with its
commands (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).

===========================  ===================================================================
``{counter}:process:ID``     a hash, the record of a process. The counter writes the ``visits``
                             that it has shown, `replicas.figures` the ``hostname`` of its
                             replica, the ``version`` that it runs, its ``labels`` as
                             ``key=value,…``, when it ``started``, and ``marked``: when it last
                             gave a sign with visits, and what it had shown before. What else it
                             has to say comes from `replicas.telling`. Dropped after a day.
``{counter}:processes``      a sorted set, the names: ids, by the time of each one's last sign
``{counter}:last:5m``,       hashes, one for each of the `HISTORIES`: for each of its steps the
``…:1h``, ``…:1d``           second at which it began, and the visits shown in it by version, as
                             ``1764220000 1.0=12 1.1=3``, versions percent-encoded
===========================  ===================================================================

Times are seconds since 1970 by Redis's clock; where it refuses scripts, by this machine's.
"""

from collections.abc import Mapping
from typing import NamedTuple

from counter import KEY

#: Seconds after which a process that gave no sign is dropped.
DAY = 24 * 60 * 60

#: The ids of the processes.
NAMES = f"{{{KEY}}}:processes"


class History(NamedTuple):
    """How long Redis remembers what was counted, and how exactly."""

    step: int
    """The seconds of a step, of which it knows the visits."""
    steps: int
    """How many it has; the newest one takes the place of the oldest."""


#: What is remembered, each under the name of its length.
HISTORIES: Mapping[str, History] = {
    "5m": History(2, 150),
    "1h": History(30, 120),
    "1d": History(600, 144),
}


def history_key(last: str) -> str:
    """Return the key of one of the `HISTORIES`."""
    return f"{{{KEY}}}:last:{last}"
