"""An embedded Valkey: its processes, its files, and a server that does nothing but keep it."""

import contextlib
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import redis

from embedded import EmbeddedError, running
from tests.support.processes import processes_in
from tests.support.program import Logging
from tests.support.waiting import wait_until


def valkey_of(data: Path) -> int:
    return int((data / "run" / "valkey.lock").read_text() or 0)


def keeper_of(data: Path) -> int:
    """Return the process id of what starts Valkey, and ends it when the server is gone."""
    (keeper,) = processes_in(data) - {valkey_of(data)}
    return keeper


def client_of(data: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(data / "run" / "valkey.sock"))


def part_of(data: Path, ending: str) -> Path:
    """Return the one file of the data whose name has an ending, as ``.base.rdb``."""
    (part,) = (data / "appendonlydir").glob(f"*{ending}")
    return part


class Keeping(Logging):
    """A process that keeps an embedded Valkey as ``server.py`` does, and leads a group.

    It is forked, which costs a tenth of a start.

    :arg before: is called in it first.
    :arg wait: until Valkey answers.
    """

    def __init__(
        self, data: Path, *, before: Callable[[], object] = lambda: None, wait: bool = True
    ) -> None:
        self.data = data
        self.status: int | None = None
        self._reading, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of pytest-xdist's thread
            self.pid = os.fork()
        if self.pid == 0:
            _serve(data, write, before)
        os.close(write)
        if wait:
            self.wait_for(b"ready")

    def _reads_more(self, seconds: float) -> bool:
        return self._read(self._reading, seconds)

    def visits(self) -> int | None:
        """Count a visit, and return its number; None where there is no Valkey."""
        with client_of(self.data) as client, contextlib.suppress(redis.RedisError):
            return int(client.incr("counter"))  # type: ignore[arg-type]
        return None

    def end(self, signum: int = signal.SIGTERM, *, group: bool = False) -> float:
        """End it by a signal, wait for its end, and return how long that took."""
        begun = time.monotonic()
        (os.killpg if group else os.kill)(self.pid, signum)
        status = self.wait()
        assert status == (-signum if signum == signal.SIGKILL else 0), self.log.decode()
        return time.monotonic() - begun

    def wait(self) -> int:
        """Wait for its end, and return its status; the log is whole then."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            while self._reads_more(0):
                pass
            os.close(self._reading)
        return self.status

    def wait_gone(self) -> None:
        wait_until(lambda: not processes_in(self.data))

    def close(self) -> None:
        if self.status is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()


def _serve(data: Path, log: int, before: Callable[[], object]) -> None:
    """Keep a Valkey until a signal, and end this process."""
    status = 1
    logger = logging.getLogger("friendlyhello.embedded")
    logger.handlers, logger.propagate = [logging.StreamHandler(os.fdopen(log, "w"))], False
    logger.setLevel(logging.INFO)
    try:
        os.setsid()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda *_: sys.exit(0))
        before()
        with running(str(data)):
            logger.info("ready")
            while True:
                signal.pause()
    except SystemExit:
        status = 0
    except EmbeddedError as error:
        logger.error(error)
    finally:
        os._exit(status)
