"""Process 1 of a container: it does what the system expects of process 1.

When a process ends and leaves children, process 1 becomes their parent, and must reap them. Signals
for which process 1 has no handler never reach it (pid_namespaces(7)). So the server is another
process. Then process 1 never reaps a process that the server waits for.
"""

import os
import signal

#: The signals that ask the server to stop. Process 1 passes them on.
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_WATCHED = (*PASSED_ON, signal.SIGCHLD)


def leave_process_1() -> None:
    """Fork, and return in the new process. Process 1 stays here, and waits for the new process.

    Process 1 ends with the status of the new process. If a signal has ended the new process, the
    status is 128 plus the signal's number, as in a shell. If process 1 had passed this signal on,
    the status is 0: the server had no handler yet, so it had nothing to drain.

    If the container may have no other process, process 1 returns.
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
        os.setpgid(0, 0)  # Ctrl-C in a terminal reaches process 1 alone, which passes it on
        # No handler of Python's own: it waits for the interpreter, and may write a traceback.
        for signum in PASSED_ON:
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)


def _outlive(server: int) -> int:
    """Pass signals on, and reap processes, until the server ends. Return the server's status."""
    passed_on = set()
    while True:
        signum = signal.sigwait(_WATCHED)
        if signum in PASSED_ON:
            passed_on.add(signum)
            os.kill(server, signum)  # nobody has reaped the server, so it still has this number
        while any(ended := os.waitpid(-1, os.WNOHANG)):
            if ended[0] == server:
                code = os.waitstatus_to_exitcode(ended[1])
                return 0 if -code in passed_on else code if code >= 0 else 128 - code
