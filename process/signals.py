"""The signals by which a process is asked to stop, once or for good."""

import signal
import time

#: SIGHUP comes when a terminal is closed. Where it was ignored at the start, as by nohup(1), the
#: program is to outlive the terminal.
STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []),
)

#: Seconds in which the same signal again is no second one: service managers, launchers and
#: terminals send it to a whole group, in which there may be others that pass it on.
SAME_SIGNAL = 0.25


class Stopping:
    """Knows whether the process has been asked to stop."""

    def __init__(self) -> None:
        self._signum: int | None = None  # the first one
        self._at: float | None = None  # when

    @property
    def asked(self) -> bool:
        """Whether it has."""
        return self._at is not None

    def ask(self, signum: int | None = None) -> bool:
        """Ask the process to stop, and return whether it is to do so at once.

        It is when this is a second signal, and not the first one once more.

        :arg signum: None when it is asked in another way, which never is a second signal.
        """
        now = time.monotonic()
        if self._at is None:
            self._signum, self._at = signum, now
            return False
        if signum is None:
            return False
        return signum != (self._signum or signum) or now > self._at + SAME_SIGNAL
