"""Stores and proxies of Debian's packages, in containers that share the host's network."""

import contextlib
import tempfile
from pathlib import Path

import redis

from tests.container.engine import OWN, Container, made
from tests.support.ports import held_port
from tests.support.waiting import PATIENCE, wait_until

#: What each of Debian's suites is installed for.
PACKAGES = {
    "bullseye": "redis-server",
    "bookworm": "redis-server",
    "trixie": "redis-server,valkey-server,haproxy,nutcracker",
    "forky": "valkey-server",
}

#: Each store: the suite that has it, and its program.
STORES = {
    "Redis 6.0": ("bullseye", "redis-server"),
    "Redis 7.0": ("bookworm", "redis-server"),
    "Redis 8.0": ("trixie", "redis-server"),
    "Valkey 8.1": ("trixie", "valkey-server"),
    "Valkey 9.1": ("forky", "valkey-server"),
}


class Machine(Container):
    """A container that listens on a port of 127.0.0.1, which stays its own while it is down.

    :arg suite: of Debian.
    :arg command: its command, in a folder of its own.
    :arg files: what is in the folder.
    :arg ports: what stands for names in braces in the command and the files, with ``{port}``.
    """

    def __init__(self, suite: str, command: str, files: dict[str, str], **ports: int) -> None:
        self._held = held_port()
        self.port = ports["port"] = self._held.getsockname()[1]
        self._temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.folder.chmod(0o777)  # the programs are not root's
        for name, text in files.items():
            (self.folder / name).write_text(_filled_in(text, ports))
        limits = ("--network=host", "--memory=256m", "--pids-limit=64")
        where = (f"--volume={self.folder}:/data", "--workdir=/data")
        image = made(f"{OWN}stores:{suite}", PACKAGES[suite], release=suite)
        words = tuple(_filled_in(command, ports).split())
        super().__init__(image, *limits, *where, command=words)

    def close(self) -> None:
        super().close()
        self._held.close()
        self._temporary.cleanup()


def _filled_in(text: str, ports: dict[str, int]) -> str:
    for name, port in ports.items():
        text = text.replace(f"{{{name}}}", str(port))
    return text


class Store(Machine):
    """A Redis or Valkey that keeps what it has acknowledged."""

    def __init__(self, name: str, *lines: str, pems: dict[str, str] | None = None) -> None:
        """Start it, and wait until it answers.

        :arg lines: of its configuration.
        :arg pems: for TLS: ``ca.pem``, ``cert.pem`` and ``key.pem``.
        """
        suite, program = STORES[name]
        ports: tuple[str, ...] = ("port {port}",)
        if pems:
            files = ("tls-cert-file cert.pem", "tls-key-file key.pem", "tls-ca-cert-file ca.pem")
            ports = ("port 0", "tls-port {port}", "tls-auth-clients no", *files)
        always = ("bind 127.0.0.1", "appendonly yes", "appendfsync always", "dir /data")
        text = "\n".join([*ports, *always, *lines, ""])
        super().__init__(suite, f"{program} store.conf", {"store.conf": text, **(pems or {})})
        ca = {"ssl": True, "ssl_ca_certs": str(self.folder / "ca.pem")} if pems else {}
        self.client = redis.Redis("127.0.0.1", self.port, socket_timeout=PATIENCE, **ca)  # type: ignore[arg-type]
        wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(self.client.ping())
        return False

    def close(self) -> None:
        self.client.close()
        super().close()


class Proxy(Machine):
    """A proxy before a store, of a kind."""

    def __init__(self, kind: str, store: Store) -> None:
        text, command = PROXIES[kind]
        # The port for twemproxy's figures would be the same for all.
        with held_port() as held:
            ports = {"store": store.port, "figures": held.getsockname()[1]}
        super().__init__("trixie", command, {"configuration": text}, **ports)


#: Of each proxy its configuration, and how it is started.
PROXIES = {
    "HAProxy": (
        """
defaults
  mode tcp
  timeout connect 1s
  timeout client 60s
  timeout server 60s
listen redis
  bind 127.0.0.1:{port}
  server one 127.0.0.1:{store} check inter 200ms
""",
        "haproxy -db -f configuration",
    ),
    # It knows a part of the commands, and hangs up on others.
    "twemproxy": (
        """
stores:
  listen: 127.0.0.1:{port}
  redis: true
  timeout: 2000
  servers:
    - 127.0.0.1:{store}:1
""",
        "nutcracker -c configuration -s {figures} -a 127.0.0.1",
    ),
}
