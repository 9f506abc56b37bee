"""A Valkey that a killed server, or a killed keeper, has left over."""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

#: Valkey's lock, seen from DIR. Valkey holds it until it is gone, and it names its process.
LOCK = Path("run/valkey.lock")

#: Seconds that a Valkey gets to end.
STOP = 3.0


def outlast(lock: int, patience: float) -> None:
    """Take Valkey's lock. One that is left over is about to stop, or is stopped.

    While the lock is held, the group of the process that it names is Valkey and what Valkey has
    forked. So the number cannot have become that of another program, as one in a file might.

    :arg lock: the open lock file.
    :arg patience: seconds until the leftover is killed.
    :raises BlockingIOError: when it is there still, `STOP` seconds later.
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
                with contextlib.suppress(ProcessLookupError, PermissionError):  # it ends
                    os.killpg(int(group), signal.SIGKILL)
            time.sleep(0.01)
