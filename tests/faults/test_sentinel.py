"""A primary, its replicas and their sentinels, all real: failovers lose no number."""

import itertools
import os
import ssl
from pathlib import Path

import pytest
import redis
import trustme

from counter import KEY
from counter.delivery import Delivery
from tests.support.driven import BUSY, driven, timed
from tests.support.exact import assert_exact, numbers
from tests.support.fake_redis import FakeRedis
from tests.support.nodes import SERVICE, Node, Sentinel
from tests.support.page import serving
from tests.support.program import Start
from tests.support.proxy import Proxy
from tests.support.store import unpacked
from tests.support.waiting import eventually, wait_until

#: How long until another is the primary, at most: sentinels wait for votes that collide, and for
#: half a minute when a busy machine has stopped their clocks.
FAILOVER = 100


#: How often the primary is killed: each failover but the first begins with a node that came back.
FAILOVERS = int(os.environ.get("FAILOVERS", 4))


class Group:
    """Three nodes and three sentinels."""

    def __init__(self, folder: Path, password: str | None = None, own: str | None = None) -> None:
        self.nodes = [Node(folder, password=password) for _ in range(3)]
        for node in self.nodes:
            node.start()
        for node in self.nodes[1:]:
            node.follow(self.nodes[0])
        wait_until(lambda: self.nodes[0].replicas_in_step() == 2)
        self.sentinels = [Sentinel(folder, password=own) for _ in range(3)]
        for sentinel in self.sentinels:
            sentinel.watch(self.nodes[0], quorum=2, password=password)
        self.wait_settled()

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/{SERVICE}/0"

    def primary(self) -> Node:
        port = self.sentinels[0].primary()
        return next(node for node in self.nodes if node.port == port)

    def new_primary(self, old: Node) -> Node:
        """Wait until another node is the primary, whatever the sentinels say of it yet."""
        others = [node for node in self.nodes if node is not old]
        wait_until(lambda: any(node.is_primary() for node in others), FAILOVER)
        return next(node for node in others if node.is_primary())

    def wait_settled(self) -> None:
        """Wait until a failover could follow: everyone knows everyone."""
        wait_until(
            lambda: all(one.knows(replicas=2, sentinels=3) for one in self.sentinels), FAILOVER
        )
        wait_until(lambda: self.primary().replicas_in_step() == 2, FAILOVER)


@pytest.fixture
def group(folder: Path) -> Group:
    return Group(folder)


@pytest.mark.timeout(600)
def test_failovers_show_each_number_once_when_a_replica_acknowledges_each_and_else_none(
    group: Group, counting: Start
) -> None:
    server = counting(f"--redis-url={group.url}", "--redis-wait=1", "--access-log=false")
    found = []
    with driven(server) as load:
        for _ in range(FAILOVERS):
            old = group.primary()
            old.kill()
            new = group.new_primary(old)
            promoted = load.now
            # Redis is back once a replica acknowledges what the new primary counts.
            wait_until(new.replicas_in_step, FAILOVER)
            load.wait_counted(load.now)
            counted = min(visit.end for visit in load.counted_since(promoted))
            found.append(load.seconds(promoted, counted))
            wait_until(lambda new=new: group.sentinels[0].primary() == new.port)  # type: ignore[misc]
            old.start("--replicaof", f"127.0.0.1 {new.port}")
            group.wait_settled()
    report = load.report()
    print(f"counting {max(found):.2f} s after the new primary at the latest\n{report.as_text()}")
    assert report.failed == 0
    assert load.latencies()[-1] < 2 + BUSY
    assert_exact(group.primary().client, [server], numbers(load))

    for node in group.nodes:
        if node.port != new.port:
            node.hang()
    for most in 2 + BUSY, 1:  # the second finds the counter off
        number, seconds = timed(server, server.visits)
        assert number is None
        assert seconds < most
    server.wait_for(rb"counter off: 0 of 1 replicas acknowledged")


@pytest.mark.timeout(600)
def test_a_hung_primary_is_left_for_the_new_one_before_a_visit_meets_it(
    group: Group, counting: Start
) -> None:
    server = counting(f"--redis-url={group.url}", "--redis-timeout=30", "--access-log=false")
    assert server.visits() == 1
    old = group.primary()
    wait_until(lambda: old.client.wait(2, 1000) == 2 or server.visits())
    old.hang()
    try:
        new = group.new_primary(old)
        wait_until(lambda: all(one.primary() != old.port for one in group.sentinels), FAILOVER)
        # The server asks who it is as it connects; those of the sentinels and of the test have
        # names.
        wait_until(lambda: "role" in [one["cmd"] for one in new.client.client_list("normal")])
        number, seconds = timed(server, server.visits)
        assert number is not None
        assert seconds < 15, "it waited for the primary that hangs"
    finally:
        old.go_on()


def test_passwords_of_the_nodes_and_of_the_sentinels_are_their_own_and_read_again(
    folder: Path, program: Start, counting: Start
) -> None:
    group = Group(folder, password="of-the-nodes", own="of-the-sentinels")
    (folder / "nodes").write_text("of-the-nodes\n")
    (folder / "sentinels").write_text("of-the-sentinels\n")
    flags = f"--redis-url={group.url}", f"--redis-password-file={folder}/nodes"
    server = counting(*flags, f"--redis-sentinel-password-file={folder}/sentinels")
    assert wait_until(server.visits) == 1
    wrong = program(*flags)
    assert wrong.visits() is None
    for sentinel in group.sentinels:
        sentinel.client.execute_command("ACL SETUSER default resetpass >of-the-moment")
    (folder / "sentinels").write_text("of-the-moment\n")
    group.primary().client.client_kill_filter(_type="normal", skipme=True)
    assert wait_until(server.visits) == 2
    assert not [line for one in (server, wrong) for line in one.stop() if "of-the" in line]


def test_sentinels_and_the_primary_are_spoken_to_over_tls(
    folder: Path, program: Start, counting: Start
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    node, watching = Node(folder), Sentinel(folder)
    node.start()
    watching.watch(node, quorum=1)
    with Proxy([node.port], tls) as primary, Proxy([watching.port], tls) as sentinel:
        # This Valkey has no TLS of its own, so its sentinels cannot name such a port.
        sentinel.to_client.change = lambda data: data.replace(
            b"%d" % node.port, b"%d" % primary.port
        )
        place = f"127.0.0.1:{sentinel.port}/{SERVICE}"
        trusting = counting(f"--redis-url=rediss+sentinel://{place}?ssl_ca_certs={folder}/ca.pem")
        assert wait_until(trusting.visits) == 1
        assert primary.accepted >= 1
        assert program(f"--redis-url=rediss+sentinel://{place}").visits() is None
        assert program(f"--redis-url=redis+sentinel://{place}").visits() is None


def test_a_copy_of_a_token_waits_for_the_replicas_as_the_first_one_does(folder: Path) -> None:
    primary, replica = Node(folder), Node(folder)
    for node in (primary, replica):
        node.start()
    replica.follow(primary)
    wait_until(primary.replicas_in_step)
    request = Delivery(KEY).request(1)

    def sent(command: bytes) -> list[object]:
        with redis.Redis(port=primary.port) as client:  # on a connection of its own
            words = unpacked(command + request.arguments)
            return [client.execute_command(*words), client.wait(1, 200)]

    replica.hang()
    assert sent(request.in_full) == [1, 0]
    state = b"1 1 1"  # the token, its last number, how many
    assert sent(request.command) == [state, 0], "no replica has it yet"
    replica.go_on()
    wait_until(lambda: sent(request.command) == [state, 1])
    assert primary.client.get("counter") == b"1"


async def test_the_primary_is_found_beside_sentinels_that_are_none_behind_the_times_hung_or_gone(
    group: Group, folder: Path, fake: FakeRedis
) -> None:
    other, stale = Node(folder), Sentinel(folder)
    other.start()
    stale.watch(other, quorum=1)
    shown = itertools.count(1)
    url = f"redis+sentinel://127.0.0.1:{stale.port},127.0.0.1:{fake.port},{group.hosts}/{SERVICE}"
    for _ in range(5):  # whoever answers first
        async with serving(url) as visitor:
            assert await visitor.counted_again() == next(shown)
    assert other.client.get("counter") is None
    with Proxy([group.sentinels[2].port]) as odd:
        async with serving(f"redis+sentinel://127.0.0.1:{odd.port}/{SERVICE}") as visitor:
            assert await visitor.counted_again() == next(shown)
            odd.to_client.change = lambda data: b"*1\r\n:1\r\n"  # no host, no port
            made = odd.accepted
            await eventually(lambda: odd.accepted > made + 2)  # it goes on asking
            assert await visitor.visit() == next(shown)
    group.sentinels[0].hang()
    group.sentinels[1].kill()
    async with serving(group.url, timeout=2) as visitor:
        assert await visitor.counted_again() == next(shown)
