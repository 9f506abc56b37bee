"""Worker processes that share a port."""

import logging
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from process.signals import STOP_SIGNALS, Stopping
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
        self._missing: list[int] = []  # the slots without a process
        self._stopping = Stopping()

    def run(self, number: int) -> None:
        """Keep workers running until one of `STOP_SIGNALS` comes, and then until they end.

        :arg number: how many workers.
        :raises OSError: when the system does not allow this many processes at the start.
        """
        # This pipe tells workers to stop. A signal from here could be their second one, because
        # the first may have gone to all of them.
        self._end_of_work, self._end = os.pipe()
        signals = _signals_as_bytes()
        waiting = select.poll()
        waiting.register(signals, select.POLLIN)
        self._missing = list(range(number))
        if why := self._start_missing():
            os.close(self._end)
            for pid in self._slots:
                os.waitpid(pid, 0)
            raise OSError(f"cannot start {number} processes: {why}")
        while self._slots or self._missing:
            if waiting.poll(1000 * RESTART_BACKOFF if self._missing else None):
                for signum in os.read(signals, 4096):
                    if signum != signal.SIGCHLD:
                        self._stop(signum)
                self._reap()
            else:
                before, why = why, self._start_missing()
                if why and not before:
                    log.error("cannot start a worker, trying again: %s", why)

    def _start_missing(self) -> str | None:
        """Start the missing workers. Return why the system does not allow one of them."""
        while self._missing:
            # A signal to the new worker must not come into this process's pipe.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            try:
                pid = os.fork()
                if pid == 0:
                    os.close(self._end)
                    _work_and_exit(self._work, self._missing[0], self._end_of_work)
            except OSError as error:
                return error.strerror
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            self._slots[pid] = self._missing.pop(0)
        return None

    def _stop(self, signum: int) -> None:
        if not self._stopping.asked:
            for listening in self._sockets:
                listening.close()
            os.close(self._end)
            self._missing.clear()
            notify("STOPPING=1")
        if self._stopping.ask(signum):
            for pid in self._slots:
                os.kill(pid, signum)

    def _reap(self) -> None:
        while self._slots and any(ended := os.waitpid(-1, os.WNOHANG)):
            pid, status = ended
            if pid not in self._slots:  # the keeper of the embedded Valkey is a child, too
                continue
            slot = self._slots.pop(pid)
            if (asked := self._asked_status()) is not None:
                for other in self._slots:
                    os.kill(other, signal.SIGKILL)
                _exit(asked)
            if not self._stopping.asked:
                code = os.waitstatus_to_exitcode(status)
                log.error("worker %d ended with status %d, starting another", pid, code)
                self._missing.append(slot)


def _signals_as_bytes() -> int:
    """Return the read end of a pipe. Each signal becomes a byte in it, whichever thread gets it.

    So no signal interrupts what this process does, and none is missed just before a wait.
    """
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    for signum in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(signum, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])  # who started it may block it
    return signals


def _work_and_exit(work: Callable[[int, int], None], slot: int, end_of_work: int) -> None:
    # The worker has a process group of its own, so that Ctrl-C in a terminal reaches the parent
    # alone. The parent then stops the worker once.
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for signum in (*STOP_SIGNALS, signal.SIGCHLD):
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
