"""A node of a cluster that takes a slot over is asked with ASKING before each command."""

from counter import Connector, packed
from replicas.link import Link
from tests.support.fake_redis import FakeRedis
from tests.support.waiting import PATIENCE


async def test_each_command_to_a_node_that_takes_a_slot_over_follows_asking() -> None:
    with FakeRedis() as asked, FakeRedis() as node:
        asked.replies["EXISTS"] = f"-ASK 6680 127.0.0.1:{node.port}\r\n".encode()
        node.replies = {
            "EXISTS": b":1\r\n",
            "ASKING": b"+OK\r\n",
            "TTL": b":1\r\n",
            "PTTL": b":2\r\n",
        }
        url = f"redis+cluster://127.0.0.1:{asked.port}"
        link = Link(Connector(url, key="counter", timeout=PATIENCE))
        commands = [packed("TTL", "counter"), packed("PTTL", "counter")]
        for ask in link.ask, link.ask_at_once:
            before = len(node.commands)
            assert await link.within_time(lambda ask=ask: ask(commands)) == [1, 2]
            said = [command.words[0] for command in node.commands[before:]]
            assert said[-4:] == ["ASKING", "TTL", "ASKING", "PTTL"]
            assert "MULTI" not in said
        link.close()
