"""Worker processes that share a port."""

import contextlib
import functools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

from process.signals import STOP_SIGNALS, Stopping
from process.systemd import notify

#: Seconds until a worker that died is replaced, so that one that cannot run takes no core.
RESTART_BACKOFF = 0.5

log = logging.getLogger("friendlyhello.workers")


def run_workers(
    number: int,
    work: Callable[[int, int], None],
    sockets: list[socket.socket],
    asked_status: Callable[[], int | None] = lambda: None,
) -> None:
    """Keep worker processes running until one of `STOP_SIGNALS`, which they are passed.

    :arg number: how many.
    :arg work: what each does, until it is to stop. It is given its slot, from 0 on, which it
        takes over from the one that it replaces, and the read end of a pipe that ends when it is
        to stop, or the parent is gone, however that happened.
    :arg sockets: what they listen on, all of them. Kept open here, so that no connection is lost
        with a worker, until the signal, so that they can stop listening.
    :arg asked_status: asked when a worker has ended: the status with which all are to end at once,
        or None.
    :raises OSError: when the system does not allow as many processes at the start.
    """
    # By its end, and not by a signal, so that workers to whom the signal was sent as well get one.
    end_of_work, end = os.pipe()
    at_work = [end]
    workers: dict[int, int] = {}  # process to slot
    stopping = Stopping()

    def start(slot: int) -> None:
        # A signal between the fork and the list would not reach the new worker.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            if not stopping.asked:
                pid = os.fork()
                if pid == 0:
                    os.close(end)
                    _work_and_exit(work, slot, end_of_work)
                workers[pid] = slot
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def stop(signum: int, frame: FrameType | None) -> None:
        # All of it may be interrupted by another signal, which does it, too.
        for listening in sockets:
            listening.close()
        while at_work:
            os.close(at_work.pop())
        if not stopping.asked:
            notify("STOPPING=1")
        if stopping.ask(signum):
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):  # it has just been waited for
                    os.kill(pid, signum)

    for signum in STOP_SIGNALS:
        signal.signal(signum, stop)
    try:
        for slot in range(number):
            start(slot)
    except OSError as error:
        os.close(at_work.pop())
        for pid in workers:
            os.waitpid(pid, 0)
        raise OSError(f"cannot start {number} processes: {error.strerror}") from None
    while workers:
        pid, status = os.wait()
        if pid not in workers:
            continue  # what keeps the embedded Valkey running, a child too
        slot = workers.pop(pid)
        if (asked := asked_status()) is not None:
            for other in workers:
                os.kill(other, signal.SIGKILL)
            logging.shutdown()
            os._exit(asked)
        if not stopping.asked:
            code = os.waitstatus_to_exitcode(status)
            log.error("worker %d ended with status %d, starting another", pid, code)
            _insist(functools.partial(start, slot))


def _insist(start: Callable[[], None]) -> None:
    """Start a worker, after a while, and again until the system allows one more process."""
    is_told = False
    while True:
        time.sleep(RESTART_BACKOFF)
        try:
            return start()
        except OSError as error:
            if not is_told:
                log.error("cannot start a worker, trying again: %s", error.strerror)
            is_told = True


def _work_and_exit(work: Callable[[int, int], None], slot: int, end_of_work: int) -> None:
    # A group of its own: a terminal's Ctrl-C is for the parent, which passes it on once.
    os.setpgid(0, 0)
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        work(slot, end_of_work)
        status = 0
    except SystemExit:  # a signal at its end
        status = 0
    except BaseException:
        log.exception("worker failed")
        status = 1
    logging.shutdown()  # what is logged may not be written yet
    os._exit(status)
