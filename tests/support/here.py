"""What ``python server.py`` says and how it ends where it does not serve, without a process."""

import contextlib
import io
import os
import subprocess
import sys
from unittest.mock import patch

import server
from tests.support.program import environment


def run_here(*flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program in this process, where it is to end before it starts anything.

    It costs a hundredth of a start. What it does to its process is left out: signals, standard
    error. Some tests see to it that a real one does the same.

    :raises AssertionError: when the settings would have let it start.
    """
    out, err = io.StringIO(), io.StringIO()
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
    return subprocess.CompletedProcess(flags, int(status), out.getvalue(), err.getvalue())


def refused(result: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the one line that a program that did not start wrote."""
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("server.py: ")
    return line.removeprefix("server.py: ")
