"""What one client may take of the server, so that the others always get theirs."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import resource

#: What a connection may take.
HTTP = {
    # Browsers and balancers stay below 8 kB; what is longer is refused as it is read.
    "max_header_size": 16 * 1024,
    # No page takes a body. One that was announced longer is refused unread.
    "max_body_size": 64 * 1024,
    # Seconds for such a body: one packet, or a few over a bad line.
    "body_timeout": 10.0,
    # Seconds for a request's headers, from their first byte on: as long for them.
    "header_timeout": 10.0,
    # Seconds in which a client has to read some of a long answer. It is not the time that a
    # connection may be idle: a balancer may need that to be long, and nobody needs this.
    "write_timeout": 60.0,
}

#: Connections that may wait to be accepted; the system lowers it to its own limit.
BACKLOG = 4096

#: Descriptors that clients leave to the rest: connections to Redis and its sentinels, one more of
#: each while they are looked for, DNS, a file that is sent, /metrics, a Valkey that starts again.
RESERVE = 32

#: Bytes of a process that serves nobody, and what it may need for a while beside its clients.
BASE = 56 << 20

#: Bytes that a client may make its connection take, whatever it sends and does not read; more over
#: TLS. `docs/settings.md` has those of each state, and a test measures them.
CONNECTION = 80 * 1024
TLS_CONNECTION = 176 * 1024

#: Streams may be one in so many of the connections, as they stay: pages and probes find room.
STREAMS_SHARE = 2

#: Seconds that a stream lives, at least and at most: then browsers come back, some of them to
#: other replicas, and not all at once.
STREAM_SECONDS = (3240.0, 3960.0)

#: What macOS allows where it says that it allows any number (setrlimit(2) there, OPEN_MAX).
MACOS_MOST = 10_240

#: Visits that may wait for their numbers. As many as arrive in the two seconds that a visit may
#: wait by default, at 5,000 a second; past it the counter is no help, and pages go without.
WAITING_VISITS = 10_000


def raise_descriptors() -> None:
    """Raise the soft limit of descriptors to the hard one (getrlimit(2)), or as far as it goes.

    Systems keep it low for programs that use select(2), which cannot do with more than 1,024.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, MACOS_MOST):
        if soft == resource.RLIM_INFINITY or (most != resource.RLIM_INFINITY and most <= soft):
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return


def max_connections(processes: int = 1, is_tls: bool = False) -> int:
    """Return how many connections of clients this process has descriptors and memory for.

    :arg processes: how many share the memory.
    :arg is_tls: whether they speak TLS.
    """
    free = memory() // processes - BASE
    by_memory = max(1, free // (TLS_CONNECTION if is_tls else CONNECTION))
    by_descriptors = _free_descriptors()
    return by_memory if by_descriptors is None else min(by_memory, by_descriptors)


def max_streams(connections: int) -> int:
    """Return how many of the connections may be streams."""
    return max(1, connections // STREAMS_SHARE)


def _free_descriptors() -> int | None:
    """Return how many are not in use now, but for `RESERVE`, or half of them where there are few.

    :return: None where the system says no limit.
    """
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    with open(os.devnull) as lowest:  # the lowest number that is free (open(2))
        free = soft - lowest.fileno()
    return max(1, free - min(RESERVE, free // 2))


def memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process and its siblings may use.

    :arg root: where ``proc`` and ``sys`` are.
    :return: the least of the machine's, of those of its control groups, and of its own limit.
    """
    found = [*_of_groups(root), *_of_process()]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((one for one in found if one > 0), default=sys.maxsize)


def _of_process() -> Iterator[int]:
    if sys.platform != "win32":
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _of_groups(root: Path) -> Iterator[int]:
    """Return the limits of the process's control group, and of those around it.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, and ``cgroup-v1/memory.html`` beside it.
    In a container its own group is the root.
    """
    mounted = root / "sys/fs/cgroup"
    groups: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                groups.add(path)
    for group in groups:
        inside = Path(group.lstrip("/"))
        for one in (inside, *inside.parents):
            for file in (
                mounted / one / "memory.max",
                mounted / "memory" / one / "memory.limit_in_bytes",
            ):
                with contextlib.suppress(OSError, ValueError):  # "max" is no number
                    yield int(file.read_text())
