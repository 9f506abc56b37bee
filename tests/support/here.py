"""``python server.py`` without a process: it serves in a thread, or says why it does not.

It costs a tenth of a start. What the program does to its process is left out: signals, standard
error, garbage. Some tests see to it that a real one does the same.
"""

import asyncio
import contextlib
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import config
import server
from tests.support.program import Site, environment
from tests.support.waiting import PATIENCE, wait_until

#: Seconds of each pause of the end, and not the length of any other.
PAUSE = 0.0101


class Served(Site):
    """What ``server.run`` serves in a thread of this process, one process's worth of it.

    A Redis is waited for, if it can be reached. Pauses of the end are short.
    """

    def __init__(self, *flags: str, **env: str) -> None:
        """Start it, and wait until it listens.

        :raises Exception: what kept it from starting.
        """
        self._error: BaseException | None = None
        self._end: Callable[[], object] | None = None
        self._serves = threading.Event()
        self._sockets: list[socket.socket] = []
        self._settings = config.load(["--port=0", *flags], environment(**env))
        self._root = logging.root.handlers, logging.root.level
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self._thread.start()
        wait_until(lambda: self._serves.is_set() or not self._thread.is_alive())
        if self._error:
            self._thread.join()
            raise self._error
        scheme = "https" if self._settings.tls_cert else "http"
        self.port = self._sockets[0].getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    def _run(self) -> None:
        logging.root.handlers = []  # else those of before would be closed
        with (
            patch("watch.logs.take_standard_error", lambda: self),
            patch("server.draining_event", self._draining),
            patch("server.listen", self._listen),
            patch("server.collect_less_garbage", self._serves.set),
            patch("server.exit_on_signals"),
            patch("server.START_TIMEOUT", PATIENCE),
            patch("http1.server.DRAIN_PAUSE", PAUSE),
            patch("http1.server.FIRST_REQUEST", PAUSE),
        ):
            try:
                server.run(self._settings)
            except BaseException as error:  # the test's own thread raises it
                self._error = error
                with warnings.catch_warnings(action="ignore"):  # of the socket of a taken port
                    one: BaseException | None = error
                    while one:
                        traceback.clear_frames(one.__traceback__)
                        one = one.__context__
            finally:
                for each in self._sockets:  # which the end of a process closes
                    each.close()
                logging.root.handlers = self._root[0]
                logging.root.setLevel(self._root[1])

    def _draining(self, end_of_work: int | None) -> asyncio.Event:
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        self._end = lambda: loop.call_soon_threadsafe(event.set)
        return event

    def _listen(self, *args: Any, _real: Any = server.listen, **options: Any) -> Any:
        made = _real(*args, **options)
        self._sockets += [one for those in made for one in those]
        return made

    def write(self, data: bytes) -> None:
        """Take what goes to standard error."""
        self.log += data

    def finish(self) -> None:
        """Wait for nothing: it is taken."""

    def _reads_more(self, seconds: float) -> bool:
        time.sleep(0.01)
        return seconds > 0

    def signal(self, signum: int = signal.SIGTERM) -> None:
        assert self._end
        with contextlib.suppress(RuntimeError):  # it has ended
            self._end()

    def wait(self, seconds: float = PATIENCE) -> int:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "it goes on"
        if self._error:
            raise self._error
        return 0

    def close(self) -> None:
        self.signal()
        self.wait()


Serve = Callable[..., Served]


def run_here(*flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program in this process, where it is to end before it starts anything.

    :raises AssertionError: when the settings would have let it start.
    """
    # The encoding is that of the log, too, of what is served meanwhile.
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(sys, "argv", ["server.py", *flags]))
        stack.enter_context(patch.dict(os.environ, environment(**env), clear=True))
        stack.enter_context(patch("process.messages.take_standard_error", lambda: None))
        started = stack.enter_context(patch("server.run", side_effect=SystemExit))
        stack.enter_context(patch("server.exit_on_signals"))
        stack.enter_context(patch("server.signal.pthread_sigmask"))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            server.main()
        except SystemExit as end:
            status = end.code or 0
    assert not started.called, "it starts"
    said = (one.buffer.getvalue().decode() for one in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(flags, int(status), *said)


def refused(result: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the one line that a program that did not start wrote."""
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("server.py: ")
    return line.removeprefix("server.py: ")
