"""Names that lead to a replica, to a Redis that takes nobody, nowhere for a while, or elsewhere."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

import counter.opening
from counter.connector import Connector
from counter.opening import ATTEMPT_DELAY, Opener, close, closed_on_error
from replicas import RefusedError
from tests.support import Caplog, Patch
from tests.support.counting import reading
from tests.support.fake_redis import FakeRedis
from tests.support.names import Names, names_of
from tests.support.nodes import Node
from tests.support.page import serving
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, eventually, within

NAME = "redis.invalid"

#: The fake Redis is at the second.
OTHER, OURS = "127.0.0.2", "127.0.0.1"

REPLICA = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n"


@pytest.fixture
def names() -> Iterator[Names]:
    yield from names_of({NAME: [OTHER, OURS]})


def hanging_up_on(command: bytes, fake: FakeRedis) -> Proxy:
    """Pass on what comes to the other address, on the same port, but for a command."""
    proxy = Proxy([fake.port], at=(OTHER, fake.port))

    def change(data: bytes) -> bytes:
        if command in data:
            raise ConnectionResetError
        return data

    proxy.to_target.change = change
    return proxy


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "role", [None, REPLICA, b"-NOPERM no\r\n", b"-ERR unknown command\r\n", b"$-1\r\n"]
)
async def test_an_address_of_a_replica_is_passed_over_and_one_that_does_not_say_will_do(
    role: bytes | None, fake: FakeRedis
) -> None:
    fake.replies |= {"ROLE": role} if role else {}
    with FakeRedis(at=(OTHER, fake.port)) as replica:
        replica.replies["ROLE"] = REPLICA
        async with serving(f"redis://{NAME}:{fake.port}") as visitor:
            if role is REPLICA:
                assert await visitor.visit() is None
                assert "is a replica" in visitor.visits.reason
            for number in () if role is REPLICA else (1, 2):
                assert await visitor.counted_again() == number
                fake.cut()
        assert not replica.visits()


async def test_a_proxy_that_hangs_up_on_role_will_do(names: Names, fake: FakeRedis) -> None:
    names.addresses[NAME] = [OTHER, "127.0.0.3"]  # nobody is at the second
    with hanging_up_on(b"ROLE", fake):
        async with serving(f"redis://{NAME}:{fake.port}", timeout=1) as visitor:
            assert await visitor.counted_again() == 1


async def test_a_proxy_that_hangs_up_on_what_is_read_refuses_it(fake: FakeRedis) -> None:
    with hanging_up_on(b"TIME", fake):
        async with serving(f"redis://{OTHER}:{fake.port}") as visitor:
            assert await visitor.counted_again() == 1
            with reading(visitor.visits) as reader:
                for _ in range(2):
                    with pytest.raises(redis.ConnectionError):
                        await reader.read()
                for _ in range(2):
                    with pytest.raises(RefusedError, match="Redis closes the connection"):
                        await reader.read()


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("user", ["", ":secret@"])
@pytest.mark.parametrize(
    "said",
    [
        "DENIED Redis is running in protected mode",
        "ERR max number of clients reached",
        "ERR max number of clients + cluster connections reached",
    ],
)
async def test_what_redis_says_as_it_takes_nobody_is_the_reason_unless_another_address_does(
    said: str, user: str, at_once: bool, names: Names, fake: FakeRedis, monkeypatch: Patch
) -> None:
    real = Opener._open_ip

    async def open_ip(opener: Opener, options: dict[str, Any], ip: str | None) -> Redis:
        opened = await real(opener, options, ip)
        async with closed_on_error(opened):
            await asyncio.sleep(0.05)
        return opened

    if at_once:  # it is there before anything is asked for
        monkeypatch.setattr(Opener, "_open_ip", open_ip)
    with FakeRedis(at=(OTHER, fake.port)) as other:
        for one in (fake, other):
            one.hanging_up, one.parting = True, f"-{said}\r\n".encode()
        for addresses in ([OTHER], [OTHER, OURS]):
            names.addresses[NAME] = addresses
            async with serving(f"redis://{user}{NAME}:{fake.port}") as visitor:
                assert await within(1, visitor.visit()) is None
                await eventually(lambda v=visitor: v.visits.reason == said.removeprefix("ERR "))  # type: ignore[misc]
        fake.hanging_up = False
        async with serving(f"redis://{NAME}:{fake.port}", timeout=1) as visitor:
            assert [await visitor.counted_again(), await visitor.visit()] == [1, 2]


@pytest.mark.parametrize("hangs", [False, True])
async def test_the_last_good_address_is_tried_beside_a_look_up_that_fails_or_hangs(
    hangs: bool, names: Names, fake: FakeRedis
) -> None:
    names.addresses[NAME] = [OURS]
    async with serving(f"redis://{NAME}:{fake.port}", timeout=1) as visitor:
        assert await visitor.counted_again() == 1
        if hangs:
            names.hanging.add(NAME)
        else:
            names.addresses[NAME] = []
        fake.cut()
        assert await within(1, visitor.visit()) == 2
        fake.refuse()
        assert await visitor.visit() is None
        fake.listen()
        assert await visitor.counted_again() == 3
        names.let_go.set()


async def test_a_look_up_that_takes_long_and_leads_elsewhere_is_waited_for(
    names: Names, fake: FakeRedis
) -> None:
    names.addresses[NAME] = [OURS]
    with FakeRedis(at=(OTHER, fake.port)) as other:
        async with serving(f"redis://{NAME}:{fake.port}", timeout=PATIENCE) as visitor:
            assert await visitor.counted_again() == 1
            names.addresses[NAME] = [OTHER]
            names.hanging.add(NAME)
            other.counter = 10
            fake.refuse()
            fake.cut()
            visit = asyncio.create_task(visitor.visit())
            await asyncio.sleep(2 * ATTEMPT_DELAY)  # the last good address is tried, and refuses
            names.let_go.set()
            assert await visit == 11


async def test_the_server_moves_to_the_redis_that_the_name_was_pointed_to_and_says_so_once(
    names: Names, fake: FakeRedis, monkeypatch: Patch, caplog: Caplog
) -> None:
    monkeypatch.setattr(counter.opening, "LOOK_UP_EVERY", 0.05)
    names.addresses[NAME] = [OURS]
    caplog.set_level(logging.INFO)
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(FakeRedis())
        new.counter = 100
        stack.enter_context(Proxy([new.port], at=(OTHER, fake.port)))
        async with serving(f"redis://{NAME}:{fake.port}") as visitor:
            others = visitor.visits.new_connector()  # as those who read and tell have
            await close((await others.connect()).redis)
            assert await visitor.counted_again() == 1
            names.addresses[NAME] = [OTHER]
            await eventually(lambda: "moving to" in caplog.text)
            found = [1]
            while found[-1] and found[-1] < 100:
                found.append(await visitor.visit() or 0)
                await asyncio.sleep(0.05)
            assert found[-1] == 101
            assert fake.counter == len(found) - 1
            async with asyncio.timeout(PATIENCE):
                while not await others.has_moved():  # noqa: ASYNC110
                    await asyncio.sleep(0.025)
            await asyncio.sleep(0.2)  # some look-ups more
    moves = [one for one in caplog.messages if "moving to" in one]
    assert moves == [f"{NAME} is no longer {OURS}: moving to {OTHER}"]
    assert "counter off" not in caplog.text


async def test_an_address_that_the_name_no_longer_has_is_not_tried_though_a_look_up_fails(
    names: Names, fake: FakeRedis, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(counter.opening, "LOOK_UP_EVERY", 0.0)
    names.addresses[NAME] = [OURS]
    connector = Connector(f"redis://{NAME}:{fake.port}", key="counter", timeout=1)
    await close((await connector.connect()).redis)
    names.addresses[NAME] = [OTHER]
    with pytest.raises(redis.ConnectionError, match=OTHER):
        await connector.connect()
    async with asyncio.timeout(PATIENCE):
        while not await connector.has_moved():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    names.addresses[NAME] = []
    with pytest.raises(OSError, match="cannot resolve"):
        await connector.connect()


async def test_a_migration_as_documented_shows_each_number_once(
    names: Names, folder: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(counter.opening, "LOOK_UP_EVERY", 0.05)
    names.addresses[NAME] = [OURS]
    old, new = Node(folder), Node(folder)
    for node in (old, new):
        node.start()
    with Proxy([new.port], at=(OTHER, old.port)):
        async with serving(f"redis://{NAME}:{old.port}", timeout=1) as visitor:
            shown = [await visitor.counted_again(), await visitor.visit()]
            new.follow(old)
            await eventually(lambda: old.replicas_in_step() == 1)
            shown += [await visitor.visit() for _ in range(10)]
            old.client.client_pause(60_000, all=False)
            assert await visitor.visit() is None
            offset = old.client.info("replication")["master_repl_offset"]
            await eventually(lambda: new.client.info("replication")["slave_repl_offset"] >= offset)
            new.client.replicaof("NO", "ONE")
            names.addresses[NAME] = [OTHER]
            shown += [await visitor.counted_again(), *[await visitor.visit() for _ in range(10)]]
            assert shown == list(range(1, len(shown) + 1))
            assert int(new.client.get("counter")) == len(shown)  # type: ignore[arg-type]


@pytest.mark.usefixtures("often_probed")
async def test_a_name_that_fails_hangs_or_leaves_the_address_out_once_moves_nobody(
    names: Names, fake: FakeRedis, monkeypatch: Patch, caplog: Caplog
) -> None:
    monkeypatch.setattr(counter.opening, "LOOK_UP_EVERY", 0.0)
    names.addresses[NAME] = [OURS]
    async with serving(f"redis://{NAME}:{fake.port}") as visitor:
        assert await visitor.counted_again() == 1
        for addresses in ([OTHER], [OURS, OTHER], [], [OTHER], [OURS]):
            names.addresses[NAME], asked = addresses, names.asked[NAME]
            await eventually(lambda asked=asked: names.asked[NAME] > asked)
            names.addresses[NAME] = [OURS]
            await eventually(lambda asked=asked: names.asked[NAME] > asked + 1)
        names.hanging.add(NAME)
        asked = names.asked[NAME]
        await eventually(lambda: names.asked[NAME] > asked + 1)
        # Nobody waits for the look-up: neither what looks for Redis, nor a visit.
        assert await visitor.visit() == 2
        fake.cut()
        assert await within(1, visitor.visit()) == 3
        names.hanging.clear()
        names.let_go.set()
        fake.refuse()
        assert await visitor.visit() is None
        fake.listen()
        assert await visitor.counted_again() == 4
    assert "moving" not in caplog.text
