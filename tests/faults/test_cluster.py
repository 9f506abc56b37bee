"""A cluster of real nodes: the counter's is found, from whichever node the way is asked."""

import contextlib
import itertools
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot

from tests.faults.test_redis_faults import LONG_DEADLINE
from tests.support.driven import BUSY, driven
from tests.support.exact import assert_all_counted, assert_exact, numbers
from tests.support.nodes import Node
from tests.support.page import serving
from tests.support.program import Program, Start
from tests.support.waiting import PATIENCE, wait_until

SLOT = key_slot(b"counter")


class Cluster:
    """Three primaries, and a replica of the one that has the counter."""

    def __init__(self, folder: Path) -> None:
        # Long enough that a busy machine makes no node look dead to the others.
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        options += ("--cluster-replica-validity-factor", "0")  # type: ignore[assignment]
        self.nodes = [Node(folder, *options) for _ in range(4)]
        for node in self.nodes:
            node.start()
        self.ids = [node.client.cluster("MYID").decode() for node in self.nodes]
        bounds = [0, 5461, 10923, 16384]
        for node, low, high in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", low, high - 1)
            if low <= SLOT < high:
                self.owner = node
        for epoch, node in enumerate(self.nodes):
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch + 1)
            met = self.nodes[0]
            node.client.execute_command("CLUSTER MEET", "127.0.0.1", met.port, met.cluster_port)
        wait_until(lambda: all(self.knows_all(node) for node in self.nodes))
        self.replica = self.nodes[3]
        self.replica.client.execute_command("CLUSTER REPLICATE", self.id_of(self.owner))
        wait_until(lambda: self.owner.replicas_in_step() == 1)
        wait_until(lambda: all(self.is_well(node) for node in self.nodes))

    def id_of(self, node: Node) -> str:
        return self.ids[self.nodes.index(node)]

    def knows_all(self, node: Node) -> bool:
        return len(node.client.execute_command("CLUSTER NODES")) == len(self.nodes)

    def is_well(self, node: Node) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "4"

    def others(self) -> list[Node]:
        return [node for node in self.nodes[:3] if node is not self.owner]


@pytest.fixture
def cluster(folder: Path) -> Cluster:
    return Cluster(folder)


def url(*nodes: Node) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


async def test_any_node_leads_to_the_counter_and_one_that_is_away_costs_nothing(
    cluster: Cluster,
) -> None:
    asked, hung = cluster.others()
    shown = itertools.count(1)
    for preferred, told in (
        ("ip", "127.0.0.1"),
        ("hostname", r"\??"),
        ("unknown-endpoint", r"\??"),
    ):
        for node in cluster.nodes:
            node.client.config_set("cluster-preferred-endpoint-type", preferred)
        with pytest.raises(redis.ResponseError, match=f"{SLOT} {told}:{cluster.owner.port}$"):
            asked.client.execute_command("EXISTS", "counter")
        for node in cluster.nodes:
            async with serving(url(node)) as visitor:
                assert await visitor.counted_again() == next(shown)
    for node in cluster.nodes:  # which goes on without a majority meanwhile
        node.client.config_set("cluster-node-timeout", 600_000)
    asked.kill()
    hung.hang()
    async with serving(url(asked, hung, cluster.owner)) as visitor:
        assert await visitor.counted_again() == next(shown)


def test_the_replica_that_takes_over_is_followed_by_the_counter_and_the_live_page(
    cluster: Cluster, counting: Start
) -> None:
    server = counting(f"--redis-url={url(*cluster.nodes)}", "--redis-wait=1", "--access-log=false")
    with driven(server) as load:
        cluster.owner.kill()
        wait_until(cluster.replica.is_primary)
        # It serves once it has told the others; without a replica of its own, no visit counts.
        cluster.owner.start()
        wait_until(lambda: cluster.replica.replicas_in_step() == 1)
        load.wait_counted(load.now)
    assert load.report().failed == 0
    assert load.latencies()[-1] < 2 + BUSY
    total = assert_exact(cluster.replica.client, [server], numbers(load)).total()
    wait_until(lambda: shown_live(server) == (total, total))


def shown_live(server: Program) -> tuple[object, int]:
    """The total, and the replicas' sum, as the live page shows them."""
    event = server.event()
    replicas = event.get("replicas", [])
    assert isinstance(replicas, list)
    return event.get("total"), sum(one["visits"] for one in replicas)


class Move:
    """The counter's slot on its way from one node to another."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.source, self.target = cluster.owner, cluster.others()[0]

    def begin(self) -> None:
        source, target = self.cluster.id_of(self.source), self.cluster.id_of(self.target)
        self.target.client.execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", source)
        self.source.client.execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", target)

    def keys(self) -> list[str]:
        found: list[str] = self.source.client.execute_command("CLUSTER GETKEYSINSLOT", SLOT, 10)
        return found

    def move_some(self, keys: list[str]) -> None:
        if keys:
            self.source.client.migrate("127.0.0.1", self.target.port, keys, 0, 1000)

    def move_all(self) -> None:
        while keys := self.keys():
            self.move_some(keys)

    def finish(self) -> None:
        for node in (self.target, self.source):
            owner = self.cluster.id_of(self.target)
            node.client.execute_command("CLUSTER SETSLOT", SLOT, "NODE", owner)


@pytest.mark.parametrize(
    "moved",
    [
        lambda key: False,
        lambda key: key == "counter",
        lambda key: key != "counter",
        lambda key: True,
    ],
    ids=["no key", "the counter", "all but the counter", "every key"],
)
def test_a_slot_that_is_half_moved_costs_no_number_and_a_server_that_starts_meanwhile_counts(
    moved: Callable[[str], bool], cluster: Cluster, counting: Start
) -> None:
    # With faults a process tells its state once a second. It must write nothing that is in the way
    # of the move.
    faulty = ("--faults", "--fault-wait=1ms")
    # No visit is to lose its number because the machine is busy: what it waits for is looked at.
    patient = f"--redis-timeout={LONG_DEADLINE}"
    flags = (f"--redis-url={url(*cluster.nodes)}", "--access-log=false", patient, *faulty)
    server = counting(*flags)
    move = Move(cluster)
    with driven(server) as load:
        load.wait_counted(load.now)
        move.begin()
        move.move_some(list(filter(moved, move.keys())))
        stayed = load.now
        other = counting(*flags)
        with driven(other) as its_load:
            wait_until(lambda: load.now > stayed + 3)
            move.move_all()
            move.finish()
            finished = load.now
            wait_until(lambda: len(load.counted_since(finished)) >= 100)
            wait_until(lambda: len(its_load.visits) >= 300)
    for one in (load, its_load):
        assert_all_counted(one)
        assert one.latencies()[-1] < 2 + BUSY
    assert_exact(move.target.client, [server, other], numbers(load) + numbers(its_load))


@contextlib.contextmanager
def watching(server: Program) -> Iterator[Iterator[dict]]:
    """Watch the live page, on one connection, and read its figures event by event."""
    with urllib.request.urlopen(f"{server.url}/live/events", timeout=PATIENCE) as stream:
        lines = (line for line in stream if line.startswith(b'data: {"time"'))
        told = (json.loads(line.removeprefix(b"data: ")) for line in lines)
        yield (one for one in told if "last" not in one)


def test_who_watches_is_told_all_the_figures_or_none_wherever_the_slot_goes(
    cluster: Cluster, counting: Start
) -> None:
    server = counting(f"--redis-url={url(*cluster.nodes)}", "--faults", "--access-log=false")

    def wait_for(what: Callable[[dict], object]) -> None:
        for event in itertools.islice(events, int(PATIENCE)):
            server.visits()
            if what(event):
                return
            assert event["redis"] != "down"
            assert "refused" not in event
            assert event["redis"] == "refused" or event["replicas"]
        raise AssertionError(event)

    def signs(event: dict) -> bool:
        """Whether figures have gone beside the visits since the last event."""
        return event["redis"] == "up" and 0 < event["replicas"][0]["seen"] < 1 + BUSY

    with watching(server) as events:
        server.visits()
        wait_for(signs)
        cluster.replica.client.execute_command("CLUSTER FAILOVER")
        wait_until(cluster.replica.is_primary)  # and the old primary keeps its connections
        cluster.owner = cluster.replica
        wait_for(signs)
        move = Move(cluster)
        move.begin()
        move.move_some(["counter"])
        wait_for(lambda event: "is being moved" in event.get("reason", ""))
        server.put("/faults", b'{"wait": "1ms"}')
        with watching(server) as others:
            assert next(others)["redis"] == "refused"
        wait_for(lambda event: True)
        move.move_all()
        move.finish()
        wait_for(lambda event: event["redis"] == "up" and "faults" in event["replicas"][0])
        server.put("/faults", b"{}")
        wait_for(lambda event: "faults" not in event["replicas"][0])
        for _ in range(3):
            wait_for(signs)
    assert not [line for line in server.stop() if "Redis refuses" in line and "script" not in line]
