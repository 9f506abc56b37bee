"""What one client may take of the server, so that the other clients always get their share."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from process import control_groups

if sys.platform != "win32":
    import resource

#: What a connection may take.
HTTP = {
    # Bytes. Browsers and balancers stay below 8 kB. The server refuses longer headers at once.
    "max_header_size": 16 * 1024,
    # Bytes. No page takes a body. The server refuses a longer one without reading it.
    "max_body_size": 64 * 1024,
    # Seconds for such a body: it is one packet, or a few over a bad line.
    "body_timeout": 10.0,
    # Seconds for the headers of a request, from their first byte on.
    "header_timeout": 10.0,
    # Seconds in which a client must read some of a long answer. The idle timeout is another limit:
    # a balancer may need a long one, and no client needs a long write timeout.
    "write_timeout": 60.0,
}

#: Connections that may wait until the server accepts them. The system may allow fewer.
BACKLOG = 4096

#: Descriptors that clients cannot take. The server needs them for connections to Redis and its
#: sentinels (twice as many during a search), DNS, a file that it sends, /metrics, a Valkey that
#: starts again.
RESERVE = 32

#: Bytes that a process needs without clients, with some to spare.
BASE = 56 << 20

#: The most bytes of memory that one connection may take, whatever its client does: over plain TCP,
#: and over TLS. `docs/settings.md` lists the bytes of each state, and a test measures them.
CONNECTION = 80 * 1024
TLS_CONNECTION = 176 * 1024

#: At most one connection in this many may be a stream. Streams stay open, and pages and probes need
#: room, too.
STREAMS_SHARE = 2

#: Seconds that a stream lives, at least and at most. Then its browser connects again, perhaps to
#: another replica. The times differ, so that browsers do not all connect together.
STREAM_SECONDS = (3240.0, 3960.0)

#: How many descriptors macOS really allows when it says that there is no limit (setrlimit(2) of
#: macOS, OPEN_MAX).
MACOS_MOST = 10_240

#: Visits that may wait for their numbers: as many as arrive in two seconds at 5,000 a second. Two
#: seconds is how long a visit may wait by default. Pages of further visits show no number.
WAITING_VISITS = 10_000


def raise_descriptors() -> None:
    """Raise the soft limit of descriptors to the hard limit (getrlimit(2)), or as far as possible.

    Systems keep the soft limit low for programs that use select(2): it fails above 1,024.
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

    :arg processes: how many processes share the memory.
    :arg is_tls: whether the connections use TLS.
    """
    free = memory() // processes - BASE
    by_memory = max(1, free // (TLS_CONNECTION if is_tls else CONNECTION))
    return min(by_memory, _free_descriptors())


def max_streams(connections: int) -> int:
    """Return how many of the connections may be streams."""
    return max(1, connections // STREAMS_SHARE)


def _free_descriptors() -> int:
    """Return how many descriptors clients may use.

    `RESERVE` descriptors are kept free, or half of them when there are few. A system may have no
    limit.
    """
    if sys.platform == "win32":
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    with open(os.devnull) as lowest:  # it gets the lowest free number (open(2))
        free = soft - lowest.fileno()
    return max(1, free - min(RESERVE, free // 2))


def memory(root: Path = Path("/")) -> int:
    """Return how many bytes of memory this process and its siblings may use.

    :arg root: the folder that holds ``proc`` and ``sys``.
    :return: the least of three: the memory of the machine, the limits of the control groups, and
        the limit of the process.
    """
    found = [*_of_groups(root)]
    if sys.platform != "win32":
        found.append(resource.getrlimit(resource.RLIMIT_AS)[0])  # no limit is -1, or very many
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((one for one in found if one > 0), default=sys.maxsize)


def _of_groups(root: Path) -> Iterator[int]:
    """Return the limits of the process's control groups, in version 2 and in version 1.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, and ``cgroup-v1/memory.html`` beside it.
    """
    for group in control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                yield int((group / name).read_text())
