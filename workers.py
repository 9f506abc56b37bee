"""Worker processes that share the listening sockets of their parent."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

#: Seconds before a worker that died is replaced, so that one that cannot run takes no core.
PAUSE = 0.5

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("friendlyhello.workers")


def run(number: int, work: Callable[[int], None], sockets: list[socket.socket]) -> None:
    """Keep worker processes running until SIGTERM or SIGINT, which they are passed.

    :arg number: how many.
    :arg work: what each does, until it gets SIGTERM. It is given the read end of a pipe that
        ends when the parent is gone, however that happened.
    :arg sockets: what they listen on; closed here at the signal, so that they can stop listening.
    """
    orphaned, parent_alive = os.pipe()
    workers: set[int] = set()
    stopping = False

    def start() -> None:
        # A signal between the fork and the list would not reach the new worker.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if not stopping:
            pid = os.fork()
            if pid == 0:
                os.close(parent_alive)
                _work_and_exit(work, orphaned)
            workers.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for listening in sockets:
            listening.close()
        for pid in workers:
            os.kill(pid, signal.SIGTERM)

    for signum in STOP_SIGNALS:
        signal.signal(signum, stop)
    for _ in range(number):
        start()
    while workers:
        pid, status = os.wait()
        if pid not in workers:
            continue  # the embedded Valkey, a child too
        workers.discard(pid)
        if not stopping:
            code = os.waitstatus_to_exitcode(status)
            log.error("worker %d ended with status %d, starting another", pid, code)
            time.sleep(PAUSE)
            start()


def _work_and_exit(work: Callable[[int], None], orphaned: int) -> None:
    # A group of its own: a terminal's Ctrl-C is for the parent, which passes it on once.
    os.setpgid(0, 0)
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        work(orphaned)
    except BaseException:
        log.exception("worker failed")
        os._exit(1)
    os._exit(0)
