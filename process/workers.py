"""Worker processes that share a port."""

import contextlib
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from process.signals import LOOK_UP_EVERY, STOP_SIGNALS, Stopping, sleep
from process.systemd import notify

#: Seconds until the parent replaces a worker that died. If workers always die, this keeps a core
#: free.
RESTART_BACKOFF = 0.5

log = logging.getLogger("friendlyhello.workers")


def run_workers(
    number: int,
    work: Callable[[int, int], None],
    sockets: list[socket.socket],
    asked_status: Callable[[], int | None] = lambda: None,
) -> None:
    """Keep worker processes running until one of `STOP_SIGNALS` comes, and then until they end.

    :arg number: how many workers.
    :arg work: what each worker does until it must stop. It gets two arguments: the worker's slot,
        from 0 on, and the read end of a pipe. A worker that replaces another gets the same slot.
        The pipe closes when the worker must stop, and also when this process dies.
    :arg sockets: all sockets that the workers listen on. This process keeps them open, so that no
        connection is lost when a worker dies. At the signal it closes them, so that the workers
        can stop listening.
    :arg asked_status: is called when a worker has ended. It returns the exit status with which all
        processes must end at once, or None.
    :raises OSError: when the system does not allow so many processes at the start.
    """
    # This pipe tells workers to stop. A signal from here could be their second one, because the
    # first may have gone to all of them.
    end_of_work, end = os.pipe()
    at_work = [end]
    workers: dict[int, int] = {}  # the slot of each process
    stopping = Stopping()

    def start(slot: int) -> None:
        # A second signal between the fork and the list would not reach the new worker.
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
        # Another signal may interrupt this function anywhere, and run it again.
        for listening in sockets:
            listening.close()
        while at_work:
            os.close(at_work.pop())
        if not stopping.asked:
            notify("STOPPING=1")
        if stopping.ask(signum):
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):  # it has just been reaped
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
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            sleep(LOOK_UP_EVERY)
            continue
        if pid not in workers:
            continue  # the keeper of the embedded Valkey is a child, too
        slot = workers.pop(pid)
        if (asked := asked_status()) is not None:
            for other in workers:
                os.kill(other, signal.SIGKILL)
            _exit(asked)
        if not stopping.asked:
            code = os.waitstatus_to_exitcode(status)
            log.error("worker %d ended with status %d, starting another", pid, code)
            _insist(functools.partial(start, slot))


def _insist(start: Callable[[], None]) -> None:
    """Start a worker after a pause. Try again until the system allows one more process."""
    is_told = False
    while True:
        sleep(RESTART_BACKOFF)
        try:
            return start()
        except OSError as error:
            if not is_told:
                log.error("cannot start a worker, trying again: %s", error.strerror)
            is_told = True


def _work_and_exit(work: Callable[[int, int], None], slot: int, end_of_work: int) -> None:
    # The worker has a process group of its own, so that Ctrl-C in a terminal reaches the parent
    # alone. The parent then stops the worker once.
    os.setpgid(0, 0)
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    status = 1
    try:
        work(slot, end_of_work)
        status = 0
    except SystemExit:  # a signal came at the end of the work
        status = 0
    except BaseException:
        log.exception("worker failed")
    finally:
        _exit(status)


def _exit(status: int) -> NoReturn:
    try:
        logging.shutdown()  # log lines may not be written yet
    finally:
        os._exit(status)  # in any case: a worker would go on with what its parent does
