"""Worker processes that share a port."""

import contextlib
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


class Workers:
    """Worker processes that share a port. This process, their parent, replaces each that dies.

    :arg work: what each worker does until it must stop. It gets two arguments: the worker's slot,
        from 0 on, and the read end of a pipe. A worker that replaces another gets the same slot.
        The pipe closes when the worker must stop, and also when this process dies.
    :arg sockets: all sockets that the workers listen on. This process keeps them open, so that no
        connection is lost when a worker dies. At the signal it closes them, so that the workers
        can stop listening.
    :arg asked_status: is called when a worker has ended. It returns the exit status with which all
        processes must end at once, or None.
    """

    def __init__(
        self,
        work: Callable[[int, int], None],
        sockets: list[socket.socket],
        asked_status: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._work = work
        self._sockets = sockets
        self._asked_status = asked_status
        self._slots: dict[int, int] = {}  # of each process
        self._stopping = Stopping()

    def run(self, number: int) -> None:
        """Keep workers running until one of `STOP_SIGNALS` comes, and then until they end.

        :arg number: how many workers.
        :raises OSError: when the system does not allow this many processes at the start.
        """
        # This pipe tells workers to stop. A signal from here could be their second one, because
        # the first may have gone to all of them.
        self._end_of_work, self._end = os.pipe()
        self._at_work = [self._end]
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._stop)
        try:
            for slot in range(number):
                self._start(slot)
        except OSError as error:
            os.close(self._at_work.pop())
            for pid in self._slots:
                os.waitpid(pid, 0)
            raise OSError(f"cannot start {number} processes: {error.strerror}") from None
        while self._slots:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                sleep(LOOK_UP_EVERY)
            elif pid in self._slots:  # the keeper of the embedded Valkey is a child, too
                self._replace(pid, status)

    def _start(self, slot: int) -> None:
        # A second signal between the fork and the list would not reach the new worker.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            if not self._stopping.asked:
                pid = os.fork()
                if pid == 0:
                    os.close(self._end)
                    _work_and_exit(self._work, slot, self._end_of_work)
                self._slots[pid] = slot
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        # Another signal may interrupt this function anywhere, and run it again.
        for listening in self._sockets:
            listening.close()
        while self._at_work:
            os.close(self._at_work.pop())
        if not self._stopping.asked:
            notify("STOPPING=1")
        if self._stopping.ask(signum):
            for pid in self._slots:
                with contextlib.suppress(ProcessLookupError):  # it has just been reaped
                    os.kill(pid, signum)

    def _replace(self, pid: int, status: int) -> None:
        slot = self._slots.pop(pid)
        if (asked := self._asked_status()) is not None:
            for other in self._slots:
                os.kill(other, signal.SIGKILL)
            _exit(asked)
        if self._stopping.asked:
            return
        code = os.waitstatus_to_exitcode(status)
        log.error("worker %d ended with status %d, starting another", pid, code)
        is_told = False
        while True:  # until the system allows one more process
            sleep(RESTART_BACKOFF)
            try:
                return self._start(slot)
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
