"""Process 1 of a container: what the system asks of it, so that the server need not know.

Process 1 is the parent of each process whose own parent has ended, and is to reap it. Signals for
which it has no handler never reach it (pid_namespaces(7)). So the server is a process of its own,
and process 1 takes no status that the server waits for.
"""

import os
import signal

#: What is passed on: by these the server is asked to stop.
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_WATCHED = (*PASSED_ON, signal.SIGCHLD)


def leave_process_1() -> None:
    """Fork, and return in the new process; this one, process 1, waits for its end.

    Process 1 ends with the status of the other, as a shell tells it: 128 and the number of a
    signal that has ended it. It is 0 when that is one that was passed on: the server did not handle
    it yet, so there was nothing to drain.

    Where the container may have no other process, process 1 goes on by itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        server = os.fork()
    except OSError:
        server = 0
    else:
        if server:
            os._exit(_outlive(server))
        if os.environ.get("LISTEN_PID") == "1":  # its sockets are for the server (sd_listen_fds(3))
            os.environ["LISTEN_PID"] = str(os.getpid())
        os.setpgid(0, 0)  # a terminal's Ctrl-C is for process 1, which passes it on once
        for signum in PASSED_ON:
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, signal.SIG_DFL)  # Python's own for SIGINT writes a traceback
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)


def _outlive(server: int) -> int:
    """Pass signals on and reap whoever has ended, until the server has; return its status."""
    passed_on = set()
    while True:
        signum = signal.sigwait(_WATCHED)
        if signum in PASSED_ON:
            passed_on.add(signum)
            os.kill(server, signum)  # it was not reaped, so that the number is still its own
        while any(ended := os.waitpid(-1, os.WNOHANG)):
            if ended[0] == server:
                code = os.waitstatus_to_exitcode(ended[1])
                return 0 if -code in passed_on else code if code >= 0 else 128 - code
