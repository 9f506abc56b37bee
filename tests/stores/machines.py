"""Stores and proxies of Debian's packages, in containers that share the host's network."""

import contextlib
import shutil
import tempfile
import uuid
from pathlib import Path

import redis

from tests.container.engine import HOW_TO_GET_IT, command, docker, succeeds
from tests.support.ports import held_port
from tests.support.waiting import PATIENCE, wait_until

#: What everything that a run starts is called by.
RUN = f"friendlyhello-stores-{uuid.uuid4().hex[:8]}"

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


def image(suite: str) -> str:
    """Return the name of a suite's image, which is made where the engine has none yet."""
    name = f"friendlyhello-base/stores:{suite}"
    if succeeds("docker", "image", "inspect", name):
        return name
    assert shutil.which("mmdebstrap"), f"{name} cannot be made: {HOW_TO_GET_IT}"
    with tempfile.TemporaryDirectory() as folder:
        # The next release's index may have expired on a mirror.
        fresh = ("--aptopt=Acquire::Check-Valid-Until false", "--variant=minbase")
        packages = f"--include={PACKAGES[suite]}"
        root = f"{folder}/root.tar"
        command("mmdebstrap", "--quiet", *fresh, packages, suite, root, seconds=900)
        docker("import", root, name, seconds=300)
    return name


class Machine:
    """A container that listens on a port of 127.0.0.1, which stays its own while it is down."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o777)  # the programs are not root's
        self._image = image(suite)
        self._port = held_port()
        self.port: int = self._port.getsockname()[1]
        self._id = ""

    def run(self, *arguments: str) -> None:
        volume = f"--volume={self.folder}:/data"
        limits = ("--network=host", "--memory=256m", "--pids-limit=64", f"--label={RUN}")
        self._id = docker("run", "-d", *limits, volume, "-w", "/data", self._image, *arguments)

    def kill(self) -> None:
        """``kill -9`` it."""
        docker("kill", self._id)

    def start_again(self) -> None:
        docker("start", self._id)

    def close(self) -> None:
        if self._id:
            docker("rm", "--force", self._id)
        self._port.close()


class Store(Machine):
    """A Redis or Valkey that keeps what it has acknowledged."""

    def __init__(self, name: str, folder: Path, *lines: str, tls: bool = False) -> None:
        """Start it, and wait until it answers.

        :arg lines: of its configuration.
        :arg tls: whether ``ca.pem``, ``cert.pem`` and ``key.pem`` are in the folder.
        """
        suite, program = STORES[name]
        super().__init__(suite, folder)
        ports: tuple[str, ...] = (f"port {self.port}",)
        if tls:
            files = ("tls-cert-file cert.pem", "tls-key-file key.pem", "tls-ca-cert-file ca.pem")
            ports = ("port 0", f"tls-port {self.port}", "tls-auth-clients no", *files)
        always = ("bind 127.0.0.1", "appendonly yes", "appendfsync always", "dir /data")
        (folder / "store.conf").write_text("\n".join([*ports, *always, *lines, ""]))
        ca = {"ssl": True, "ssl_ca_certs": str(folder / "ca.pem")} if tls else {}
        self.client = redis.Redis("127.0.0.1", self.port, socket_timeout=PATIENCE, **ca)  # type: ignore[arg-type]
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self.run(program, "/data/store.conf")
            wait_until(self.answers)
            stack.pop_all()

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def cut(self) -> None:
        """Close every connection of a client's."""
        self.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def counter(self) -> int:
        return int(self.client.get("counter") or 0)

    def close(self) -> None:
        self.client.close()
        super().close()


class Proxy(Machine):
    """A proxy before a store, of a kind."""

    def __init__(self, kind: str, store: Store, folder: Path) -> None:
        super().__init__("trixie", folder)
        # The port for twemproxy's figures would be the same for all.
        with held_port() as figures:
            ports = {"port": self.port, "store": store.port, "figures": figures.getsockname()[1]}
        text, command = PROXIES[kind]
        (folder / "configuration").write_text(text.format(**ports))
        self.run(*command.format(**ports).split())


#: Of each proxy its configuration, and how it is started.
PROXIES = {
    "HAProxy": (
        """
defaults
  mode tcp
  timeout connect 1s
  timeout client 60s
  timeout server 60s
frontend redis
  bind 127.0.0.1:{port}
  default_backend stores
backend stores
  server one 127.0.0.1:{store} check inter 200ms
""",
        "haproxy -db -f /data/configuration",
    ),
    # It knows a part of the commands, and hangs up on others.
    "twemproxy": (
        """
stores:
  listen: 127.0.0.1:{port}
  redis: true
  distribution: ketama
  auto_eject_hosts: false
  timeout: 2000
  servers:
    - 127.0.0.1:{store}:1
""",
        "nutcracker -c /data/configuration -s {figures} -a 127.0.0.1",
    ),
}
