"""What one client may take of the server, so that the others always get theirs."""

import contextlib
import os
import sys

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


def max_connections() -> int | None:
    """Return how many connections of clients this process has descriptors for.

    :return: those that are not in use now, but for `RESERVE`, or half of them where there are few;
        None where the system says no limit.
    """
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    with open(os.devnull) as lowest:  # the lowest number that is free (open(2))
        free = soft - lowest.fileno()
    return max(1, free - min(RESERVE, free // 2))
