"""A leftover: a Valkey that still runs after its server or its keeper was killed."""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

#: Valkey's lock file, in DIR. Valkey holds the lock until it is gone. The file names its process.
LOCK = Path("run/valkey.lock")

#: Seconds that a Valkey gets to end.
STOP = 3.0


def outlast(lock: int, patience: float) -> None:
    """Take Valkey's lock. Wait for a leftover to end, and kill it if it does not.

    The lock file names a process group. While the lock is held, this group is Valkey and what
    Valkey has forked. So the number cannot belong to another program by now.

    :arg lock: the open lock file.
    :arg patience: seconds until the leftover is killed.
    :raises BlockingIOError: when the leftover still runs `STOP` seconds after that.
    """
    kill_at = time.monotonic() + patience
    give_up_at = kill_at + STOP
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if now > give_up_at:
                raise
            if now > kill_at and (group := os.pread(lock, 10, 0)):
                with contextlib.suppress(ProcessLookupError, PermissionError):  # it is ending
                    os.killpg(int(group), signal.SIGKILL)
            time.sleep(0.01)
