"""The signals that ask a process to stop, and the second signal that stops it at once."""

import signal
import time

#: The system sends SIGHUP when a terminal is closed. If SIGHUP was ignored at the start, as with
#: nohup(1), it stays ignored, and the program outlives the terminal.
STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []),
)

#: Seconds during which the same signal does not count as a second signal. Service managers,
#: launchers and terminals send a signal to a whole group, and a process in the group may pass the
#: signal on.
SAME_SIGNAL = 0.25


#: Seconds after which a process interrupts a wait. A signal that comes just before the wait does
#: not end the wait: Python runs the signal's handler only after the wait.
LOOK_UP_EVERY = 0.1


def sleep(seconds: float) -> None:
    """Sleep, but run the handler of a signal within `LOOK_UP_EVERY` seconds.

    :arg seconds: how long.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_UP_EVERY))


class Stopping:
    """Knows whether the process has been asked to stop."""

    def __init__(self) -> None:
        self._signum: int | None = None  # the first signal
        self._at: float | None = None  # when the process was asked first

    @property
    def asked(self) -> bool:
        """Whether the process has been asked to stop."""
        return self._at is not None

    def ask(self, signum: int | None = None) -> bool:
        """Ask the process to stop.

        :arg signum: the signal; None for a request by other means, which is never a second signal.
        :return: whether the process must stop at once, because this is a second signal.
        """
        now = time.monotonic()
        if self._at is None:
            self._signum, self._at = signum, now
            return False
        if signum is None:
            return False
        return signum != (self._signum or signum) or now > self._at + SAME_SIGNAL
