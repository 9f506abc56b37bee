"""A cluster of real nodes: the counter's is found, from whichever node the way is asked."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot

from tests.faults.test_redis_faults import LONG_DEADLINE
from tests.support.driven import BUSY, driven
from tests.support.exact import assert_all_counted, assert_exact, numbers
from tests.support.nodes import Node
from tests.support.page import serving
from tests.support.program import Start
from tests.support.waiting import PATIENCE, wait_until

SLOT = key_slot(b"counter")


class Cluster:
    """Three primaries, and a replica of the one that has the counter."""

    def __init__(self, folder: Path) -> None:
        # Long enough that a busy machine makes no node look dead to the others.
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        more = ("--cluster-replica-validity-factor", "0")
        self.nodes = [Node(folder, *options, *more) for _ in range(4)]
        for node in self.nodes:
            node.start()
        self.ids = {node: node.client.cluster("MYID").decode() for node in self.nodes}
        bounds = [0, 5461, 10923, 16384]
        for node, low, high in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", low, high - 1)
            if low <= SLOT < high:
                self.owner = node
        self.others = [node for node in self.nodes[:3] if node is not self.owner]
        met, self.replica = self.nodes[0], self.nodes[3]
        for epoch, node in enumerate(self.nodes):
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch + 1)
            node.client.execute_command("CLUSTER MEET", "127.0.0.1", met.port, met.cluster_port)
        wait_until(lambda: all(self.knows_all(node) for node in self.nodes))
        self.replica.client.execute_command("CLUSTER REPLICATE", self.ids[self.owner])
        wait_until(lambda: self.owner.replicas_in_step() == 1)
        wait_until(lambda: all(self.is_well(node) for node in self.nodes))

    def knows_all(self, node: Node) -> bool:
        return len(node.client.execute_command("CLUSTER NODES")) == len(self.nodes)

    def is_well(self, node: Node) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "4"

    # The counter's slot goes from its owner to another node.

    @property
    def target(self) -> Node:
        return self.others[0]

    def begin_move(self) -> None:
        for node, state, other in (
            (self.target, "IMPORTING", self.owner),
            (self.owner, "MIGRATING", self.target),
        ):
            node.client.execute_command("CLUSTER SETSLOT", SLOT, state, self.ids[other])

    def move(self, is_moved: Callable[[str], bool] = lambda key: True) -> None:
        """Move keys of the slot."""
        client = self.owner.client
        there = functools.partial(client.execute_command, "CLUSTER GETKEYSINSLOT", SLOT, 10)
        while keys := [*filter(is_moved, there())]:
            client.migrate("127.0.0.1", self.target.port, keys, 0, 1000)

    def finish_move(self) -> None:
        for node in (self.target, self.owner):
            node.client.execute_command("CLUSTER SETSLOT", SLOT, "NODE", self.ids[self.target])


@pytest.fixture
def cluster(folder: Path) -> Cluster:
    return Cluster(folder)


def url(*nodes: Node) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


async def test_any_node_leads_to_the_counter_and_one_that_is_away_costs_nothing(
    cluster: Cluster,
) -> None:
    asked, hung = cluster.others
    shown = itertools.count(1)
    for preferred, told in ("ip", "127.0.0.1"), ("hostname", r"\??"), ("unknown-endpoint", r"\??"):
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

    def is_shown_live() -> bool:
        """Whether it is the total on the live page, and the sum of the replicas."""
        event = server.event()
        replicas = event.get("replicas", [])
        return event.get("total") == total == sum(one["visits"] for one in replicas)

    wait_until(is_shown_live)


MOVED: dict[str, Callable[[str], bool]] = {
    "no key": lambda key: False,
    "the counter": lambda key: key == "counter",
    "all but the counter": lambda key: key != "counter",
    "every key": lambda key: True,
}


@pytest.mark.parametrize("moved", MOVED)
def test_a_slot_that_is_half_moved_costs_no_number_and_a_server_that_starts_meanwhile_counts(
    moved: str, cluster: Cluster, counting: Start
) -> None:
    # With faults a process tells its state once a second. It must write nothing that is in the way
    # of the move.
    faulty = ("--faults", "--fault-wait=1ms")
    # No visit is to lose its number because the machine is busy: what it waits for is looked at.
    patient = f"--redis-timeout={LONG_DEADLINE}"
    flags = (f"--redis-url={url(*cluster.nodes)}", "--access-log=false", patient, *faulty)
    server = counting(*flags)
    with driven(server) as load:
        load.wait_counted(load.now)
        cluster.begin_move()
        cluster.move(MOVED[moved])
        stayed = load.now
        other = counting(*flags)
        with driven(other) as its_load:
            wait_until(lambda: load.now > stayed + 3)
            cluster.move()
            cluster.finish_move()
            finished = load.now
            wait_until(lambda: len(load.counted_since(finished)) >= 100)
            wait_until(lambda: len(its_load.visits) >= 300)
    for one in (load, its_load):
        assert_all_counted(one)
        assert one.latencies()[-1] < 2 + BUSY
    assert_exact(cluster.target.client, [server, other], numbers(load) + numbers(its_load))


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

    with server.events() as events:
        server.visits()
        wait_for(signs)
        cluster.replica.client.execute_command("CLUSTER FAILOVER")
        wait_until(cluster.replica.is_primary)  # and the old primary keeps its connections
        cluster.owner = cluster.replica
        wait_for(signs)
        cluster.begin_move()
        cluster.move(MOVED["the counter"])
        wait_for(lambda event: "is being moved" in event.get("reason", ""))
        server.put("/faults", b'{"wait": "1ms"}')
        with server.events() as others:
            assert next(others)["redis"] == "refused"
        wait_for(lambda event: True)
        cluster.move()
        cluster.finish_move()
        wait_for(lambda event: event["redis"] == "up" and "faults" in event["replicas"][0])
        server.put("/faults", b"{}")
        wait_for(lambda event: "faults" not in event["replicas"][0])
        for _ in range(3):
            wait_for(signs)
    assert not [line for line in server.stop() if "Redis refuses" in line and "script" not in line]
