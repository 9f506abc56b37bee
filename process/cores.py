"""How many cores this process may use, by its affinity and the quotas of its control groups.

A quota is CPU time in each period. Both are in microseconds. A group can use no more than each
group above it, so this module reads the quotas of all of them:

- version 2 has quota and period in the file ``cpu.max``
  (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files),
- version 1 has them in ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``
  (https://docs.kernel.org/scheduler/sched-bwc.html#management).
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many processes can work at the same time; at least one.

    A quota of 1.5 cores counts as two, as in Java and Go, so that the processes can use all of it.
    When both work, they use the quota up, and wait for the end of the period, usually 0.1 s.

    :arg root: the folder that holds ``proc`` and ``sys``.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))  # sched_setaffinity(2), and what the cpuset allows
    else:  # on macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Return the quotas of this process's groups, in cores."""
    for group in control_groups(root, "cpu"):
        # A group without the file has no quota. "max" is no quota, and in version 1 nor is -1.
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


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Return the folders of the groups that this process is in, from its own up to the root.

    A container may see its own group as the root. The system still tells the path that this group
    has outside. Inside there is no folder with this path, and only the root counts.

    :arg root: the folder that holds ``proc`` and ``sys``.
    :arg controller: what the groups limit: ``cpu`` or ``memory``.
    """
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="surrogateescape").split("\n")
    except OSError:  # not on Linux, or hidden
        return
    for line in lines:  # cgroups(7): hierarchy:controllers:path; version 2 names no controllers
        controllers, colon, path = line.partition(":")[2].partition(":")
        if not colon or (controllers and controller not in controllers.split(",")):
            continue
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            yield mounted / controllers / group
