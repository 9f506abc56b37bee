"""Standard error that never makes the server wait: a pipe that nobody reads, or a full disk."""

import contextlib
import fcntl
import functools
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: The most bytes of lines that may wait for the thread. The server drops further lines.
MOST_WAITING = 1024 * 1024

#: When this many bytes wait, `StandardError.write` waits for the thread: this many seconds at most.
#: An event loop that never rests may keep the interpreter from the thread for seconds.
MUCH_WAITING, STAND_BACK = MOST_WAITING // 4, 0.02

#: Seconds between two writes of the thread. All lines that come in this time cost one switch to the
#: thread and back.
PAUSE = 0.01

#: Seconds that the end of the program, or a fork, waits for lines that the thread has not written
#: yet; and how many such waits it makes while the descriptor has room. After these waits, the
#: machine is too busy to run the thread.
PATIENCE, MOST_TIMES = 0.2, 25


class StandardError(io.RawIOBase):
    """Takes lines, and lets a thread write them to a descriptor.

    With a thread, the server never waits, whatever the descriptor is. ``O_NONBLOCK`` would change
    the terminal or the pipe for all processes that share it. A pipe may have room when the server
    looks, and be full when the server writes, because another process has filled it. The thread
    writes all lines that wait together, because a busy event loop lets the thread run every 5 ms at
    best (`sys.getswitchinterval`).

    :arg descriptor: where the lines go. It may be blocking or not.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._turns = -1  # the process that writes locks this, when there are several
        self._begun = b""  # the rest of a line that was only partly written
        #: Hears how many lines are dropped, each time.
        self.on_dropped: Callable[[int], None] = lambda lines: None
        #: Returns the line that says how many lines were dropped.
        self.note: Callable[[int], bytes] = lambda lines: b"%d lines were dropped\n" % lines
        self.forget()

    def forget(self) -> None:
        """Start anew in a new process: the thread and the lines belong to its parent."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_idle = False  # the thread waits for lines
        self._has_stood_back = False  # `write` has waited since the thread last took lines
        self._is_finishing = False
        self._patience = PATIENCE
        self._waiting: list[bytes] = []
        self._size = 0  # bytes that wait
        self._untold = 0  # how many dropped lines no line has reported yet

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True: it takes lines."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Take whole lines, or drop them when too many bytes wait.

        This never waits for the descriptor.

        :return: the number of bytes, even if they are dropped.
        """
        data = bytes(data)
        with self._changed:
            if self._size >= MOST_WAITING:
                self._untold += self._drop(data.count(b"\n"))
            else:
                self._waiting.append(data)
                self._size += len(data)
                if self._thread is None:
                    self._start()
                    self._write_without_thread()
                elif self._is_idle:
                    self._is_idle = False
                    self._changed.notify_all()
                if self._size >= MUCH_WAITING and not self._has_stood_back:
                    self._stand_back()
        return len(data)

    def finish(self) -> None:
        """Wait until all lines are written and the thread has ended.

        The next line starts another thread. If the descriptor takes nothing, this waits for
        `PATIENCE` at most. It does not wait again until the descriptor has taken something.
        """
        with self._changed:
            self._is_finishing = True
            self._changed.notify_all()
            if (self._waiting or self._untold) and self._thread is None:
                select.select([], [self._descriptor], [], self._patience)
                self._write_without_thread()
            for _ in range(MOST_TIMES):
                if self._changed.wait_for(lambda: self._thread is None, self._patience):
                    break
                if not self._has_room():
                    self._patience = 0.0
                    break
            self._is_finishing = False

    def _stand_back(self) -> None:
        """Wait until the thread takes the lines, unless the thread itself waits for room."""
        if self._thread and self._has_room():
            self._has_stood_back = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._size < MUCH_WAITING, STAND_BACK)

    def _start(self) -> None:
        if sys.is_finalizing():
            return  # the thread would not run, and `finish` would wait for it
        thread = threading.Thread(target=self._work, name="standard error", daemon=True)
        # Signals are for the main thread, even while it blocks them. So this thread blocks all.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with contextlib.suppress(RuntimeError):  # no more threads; the next line tries again
                thread.start()
                self._thread = thread
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_idle = not self._waiting
                self._changed.wait_for(lambda: self._waiting or self._is_finishing)
                self._is_idle = False
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                data, self._waiting, self._size = b"".join(self._waiting), [], 0
                untold, self._untold = self._untold, 0
                self._has_stood_back = False
                self._changed.notify_all()
            with self._turn():
                lost = self._write(data)
                untold += lost
                is_told = not untold or not self._write(self.note(untold))
            with self._changed:
                self._drop(lost)
                self._untold += 0 if is_told else untold
                self._changed.wait_for(self._is_urgent, PAUSE)

    def _write_without_thread(self) -> None:
        """Write as much as the descriptor takes at once, when the system allows no thread."""
        lost = 0
        while not self._thread and not lost and self._has_room():
            if not self._waiting and not self._untold:
                break
            is_note = not self._waiting
            data = self.note(self._untold) if is_note else b"".join(self._waiting)
            try:
                with self._turn(fcntl.LOCK_NB):
                    lost = self._write(data[: select.PIPE_BUF])
            except BlockingIOError:  # another process of the server writes
                break
            rest = data[select.PIPE_BUF :]
            self._waiting, self._size = [rest] if rest else [], len(rest)
            if not is_note:
                self._untold += self._drop(lost)
            elif not lost:
                self._untold = 0

    def _has_room(self) -> bool:
        """Whether the descriptor takes ``PIPE_BUF`` bytes without waiting."""
        return bool(select.select([], [self._descriptor], [], 0)[1])

    def _is_urgent(self) -> bool:
        return self._is_finishing or self._size >= MUCH_WAITING

    def _drop(self, lines: int) -> int:
        if lines:
            self.on_dropped(lines)
        return lines

    def _write(self, data: bytes) -> int:
        """Write lines, however long it takes. Return how many could not be written."""
        is_begun, data, at = bool(self._begun), self._begun + data, 0
        while at < len(data):
            try:
                at += os.write(self._descriptor, data[at:])
            except BlockingIOError:  # another process has set O_NONBLOCK
                select.select([], [self._descriptor], [])
            except OSError:
                # When writing works again, the rest of a line that was begun comes first.
                end = data.find(b"\n", at) + 1 if is_begun else at
                self._begun = data[at:end]
                return data.count(b"\n", end)
            else:
                is_begun = data[at - 1 : at] != b"\n"
                self._patience = PATIENCE
        self._begun = b""
        return 0

    @contextlib.contextmanager
    def _turn(self, flags: int = 0) -> Iterator[None]:
        """Wait until no other process of the server writes, and keep the others from writing.

        A full pipe takes a part of a text. Without turns, the parts would mix.

        :arg flags: with ``LOCK_NB``, do not wait.
        :raises BlockingIOError: with ``LOCK_NB``, when another process writes.
        """
        if self._turns == -1:
            yield
            return
        fcntl.lockf(self._turns, fcntl.LOCK_EX | flags)  # the lock also ends with the process
        try:
            yield
        finally:
            fcntl.lockf(self._turns, fcntl.LOCK_UN)

    def before_fork(self) -> None:
        """Write all lines before a fork. On Linux, take turns with the new process after it."""
        if self._turns == -1 and hasattr(os, "memfd_create"):
            self._turns = os.memfd_create("standard error")
        self.finish()


@functools.cache
def take_standard_error() -> StandardError | None:
    """Take standard error over, for this process and the processes that it forks.

    From then on `sys.stderr` leads there too, so tracebacks and warnings do not wait, either.

    :return: what takes the lines; None when the process has no standard error.
    """
    stream = sys.stderr
    if stream is None:
        return None
    error = StandardError(stream.fileno())
    sys.stderr = io.TextIOWrapper(
        error,  # without a buffer in between, as with `python -u`
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
    )
    os.register_at_fork(before=error.before_fork, after_in_child=error.forget)
    return error
