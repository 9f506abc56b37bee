"""Real Valkeys over TCP: nodes that replicate, the sentinels that watch them, a cluster."""

import contextlib
import tempfile
from pathlib import Path
from typing import ClassVar

import redis

from tests.support.ports import held_port
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

SERVICE = "mymaster"

#: Milliseconds without an answer after which a sentinel takes a node for dead. It asks once a
#: second, so with less it would now and then depose a primary that is well and has a replica
#: to acknowledge what it counts, which no WAIT can make good.
DOWN_AFTER = 2000


class Node(Valkey):
    """A Valkey on a port of 127.0.0.1.

    Others have to know its port before it starts, and while it is dead. So the test holds the
    port, and that of the cluster's bus, for as long as the node may need them.

    :arg words: of settings.
    """

    started: ClassVar[list["Node"]] = []
    """Those of the test, which end with it."""

    def __init__(self, folder: Path, *words: str, password: str | None = None) -> None:
        super().__init__(Path(tempfile.mkdtemp(dir=folder, prefix="node-")))
        self._held = [held_port(), held_port()]
        self.port, self.cluster_port = (one.getsockname()[1] for one in self._held)
        self.address = ("127.0.0.1", self.port)
        self.client = redis.Redis(port=self.port, password=password, socket_timeout=PATIENCE)
        self.settings = {
            **{"port": str(self.port), "cluster-port": str(self.cluster_port)},
            **{"bind": "127.0.0.1", "save": ""},
            **{"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"},
            **({"requirepass": password, "masterauth": password} if password else {}),
        }
        self._words = words
        Node.started.append(self)

    def start(self, *words: str, **settings: str) -> None:
        super().start(*self._words, *words, **settings)

    def follow(self, primary: "Node") -> None:
        self.client.replicaof("127.0.0.1", primary.port)

    def is_primary(self) -> bool:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(self.client.role()[0] == b"master")
        return False

    def replicas_in_step(self) -> int:
        info = self.client.info("replication")
        return sum(info[f"slave{i}"]["state"] == "online" for i in range(info["connected_slaves"]))

    def close(self) -> None:
        super().close()
        for one in self._held:
            one.close()


class Sentinel(Node):
    def watch(self, primary: Node, quorum: int, password: str | None = None) -> None:
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 2",
        ]
        if password:
            lines.append(f"sentinel auth-pass {SERVICE} {password}")
        own = self.client.get_connection_kwargs()["password"]
        if own:
            lines += [f"requirepass {own}", f"sentinel sentinel-pass {own}"]
        config = self.folder / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        self._run(str(config), "--sentinel")

    def primary(self) -> int:
        _host, port = self.client.sentinel_get_master_addr_by_name(SERVICE)
        return int(port)

    def knows(self, replicas: int, sentinels: int) -> bool:
        state = self.client.sentinel_master(SERVICE)
        found = [one for one in self.client.sentinel_slaves(SERVICE) if not one["is_disconnected"]]
        return bool(
            len([one for one in found if not one["is_sdown"]]) == replicas
            and state["num-other-sentinels"] == sentinels - 1
        )
