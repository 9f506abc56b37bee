"""How many cores this process may use: its affinity and the quotas of its control groups count.

A quota is microseconds of CPU time in a period of so many. A group has at most what the groups
above it have, so each of them is asked:

- version 2 has both in the file ``cpu.max``
  (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files),
- version 1 has ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``
  (https://docs.kernel.org/scheduler/sched-bwc.html#management).
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many processes can be at work at the same time; at least one.

    A quota of one core and a half counts as two, so that all of it can be used, as Java and Go
    count it. With all of them at work, the last ones wait for the end of a period, 0.1 s as a rule.

    :arg root: the folder in which ``proc`` and ``sys`` are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))  # sched_setaffinity(2), and what the cpuset allows
    else:  # on macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Return the quotas that count for this process, in cores."""
    for group in _groups(root):
        # What is not there sets no quota; nor does "max", or -1 in version 1.
        with contextlib.suppress(OSError, ValueError):
            quota, period = _quota_of(group)
            if quota > 0 and period > 0:
                yield quota / period


def _quota_of(group: Path) -> tuple[int, int]:
    if (both := group / "cpu.max").exists():
        quota, period = both.read_text().split()
    else:
        quota = (group / "cpu.cfs_quota_us").read_text()
        period = (group / "cpu.cfs_period_us").read_text()
    return int(quota), int(period)


def _groups(root: Path) -> Iterator[Path]:
    """Return the folders of the groups that this process is in, from its own up to the topmost.

    Its own may not be found in a container that sees its own group as the topmost one, and is told
    the path that it has outside. That one is asked, too.
    """
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not on Linux, or hidden
        return
    for line in lines:  # cgroups(7): hierarchy:controllers:path; version 2 names no controllers
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            yield mounted / controllers / group
