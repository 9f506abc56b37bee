"""Redis is back: our own part, from when its address answers to the first page with a number.

What the platform takes until then, for another pod, its start or DNS, is not in these seconds.
"""

import asyncio
import contextlib
import functools
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import counter.opening
from tests.faults.test_sentinel import Group
from tests.support import Patch
from tests.support.nodes import SERVICE, Node
from tests.support.page import ServedVisitor, serving
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, eventually, within

#: Seconds of our own part, at most.
OURS = 1.0

#: Seconds that a visit may wait: the default.
DEADLINE = 2.0

Look = Callable[[], Awaitable[bool]]


@pytest.fixture
def node(folder: Path) -> Node:
    one = Node(folder, "--appendonly", "yes")
    one.start()
    return one


def url_of(one: Node | Proxy, host: str = "127.0.0.1") -> str:
    return f"redis://{host}:{one.port}"


async def answers(port: int, asked: bytes = b"PING", answer: bytes = b"+PONG") -> bool:
    """Tell whether a server answers so, and soon, on a connection of its own."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(0.2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(asked + b"\r\n")
                return (await reader.readline()).startswith(answer)
            finally:
                writer.close()
    return False


async def first(is_back: Look) -> None:
    """Return when a look says yes. One that is stuck does not hold the next one up."""
    back = asyncio.Event()

    async def look() -> None:
        if await is_back():
            back.set()

    looks = set()
    while not back.is_set():
        looks.add(asyncio.create_task(look()))
        await asyncio.sleep(0.02)
    await asyncio.gather(*looks)


@contextlib.asynccontextmanager
async def outage(
    visitor: ServedVisitor,
    lose: Callable[[], object],
    is_back: Look,
    *,
    off: bool = True,
    ours: float = OURS,
) -> AsyncIterator[None]:
    """Lose Redis, let it come back in the context, and check how soon a page has a number.

    :arg off: whether the counter is off before it comes back.
    :arg ours: seconds of our own part, at most.
    """
    counted = 0.0  # when a page last had a number

    async def visit() -> None:
        nonlocal counted
        while True:
            number = await visitor.visit()
            counted = time.monotonic() if number else counted
            await asyncio.sleep(0.02)

    visiting = [asyncio.create_task(visit()) for _ in range(4)]
    try:
        await asyncio.to_thread(lose)
        await eventually(lambda: not off or not visitor.visits.up)
        watching = asyncio.create_task(first(is_back))
        watching.add_done_callback(lambda _: back.append(time.monotonic()))
        back: list[float] = []
        yield
        await asyncio.wait_for(watching, PATIENCE)
        await within(ours, eventually(lambda: counted > back[0]))
        print(f"counted {counted - back[0]:.2f} s after Redis was back")
    finally:
        for one in visiting:
            one.cancel()
        await asyncio.gather(*visiting, return_exceptions=True)


@pytest.mark.parametrize("seconds", [0.3, 2])
async def test_after_connections_were_refused(node: Node, seconds: float) -> None:
    async with serving(url_of(node), timeout=DEADLINE) as visitor:
        assert await visitor.counted_again() == 1
        async with outage(visitor, node.kill, lambda: answers(node.port)):
            await asyncio.sleep(seconds)
            await asyncio.to_thread(node.start)


@pytest.mark.parametrize("seconds", [0.1, 3, 10])  # a probe that is stuck is given up after 5
async def test_after_it_hung(node: Node, seconds: float) -> None:
    async with serving(url_of(node), timeout=DEADLINE) as visitor:
        assert await visitor.counted_again() == 1
        async with outage(visitor, node.hang, lambda: answers(node.port)):
            await asyncio.sleep(seconds)
            node.go_on()


async def test_after_it_loaded_its_data(folder: Path) -> None:
    # Microseconds that each key takes, and bytes after which it answers others meanwhile.
    node = Node(
        folder, "--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"
    )
    node.start()
    node.client.mset({f"key-{i}": "x" * 100 for i in range(500)})
    async with serving(url_of(node), timeout=DEADLINE) as visitor:
        assert await visitor.counted_again() == 1
        node.client.save()
        async with outage(visitor, node.kill, lambda: answers(node.port)):
            starting = asyncio.create_task(asyncio.to_thread(node.start))
            await eventually(lambda: "loading" in visitor.visits.reason)
            await starting


async def test_after_its_password_was_changed(node: Node, folder: Path) -> None:
    file = folder / "password"
    file.write_text("old")
    node.client.config_set("requirepass", "old")
    node.client.auth("old")

    def change() -> None:
        node.client.config_set("requirepass", "new")
        node.client.client_kill_filter(_type="normal", skipme=True)

    async def agree() -> bool:
        return file.read_text() == "new"

    async with serving(url_of(node), timeout=DEADLINE, password=file.read_text) as visitor:
        assert await visitor.counted_again() == 1
        async with outage(visitor, change, agree):
            await asyncio.sleep(1.2)
            file.write_text("new")


class Resolver:
    """Stands in for the system's, for one name; when it is away, its look-ups fail or hang.

    One that hangs asks again after five seconds, and fails after ten (resolv.conf(5)).
    """

    def __init__(self, name: str, hangs: bool) -> None:
        self.name, self.is_away, self._hangs, self._real = name, False, hangs, socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host == self.name:
            asked = 0
            while self.is_away:
                if not self._hangs or asked == 2:
                    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
                time.sleep(5)
                asked += 1
            host = "127.0.0.1"
        return list(self._real(host, port, *args, **options))


@pytest.mark.parametrize("known", [False, True], ids=["never known", "known before"])
@pytest.mark.parametrize("hangs", [False, True])
async def test_after_its_name_did_not_resolve(
    node: Node, known: bool, hangs: bool, monkeypatch: Patch
) -> None:
    resolver = Resolver(f"redis-{node.port}.invalid", hangs)
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    resolver.is_away = not known

    def lose() -> None:
        resolver.is_away = True
        node.kill()

    async def resolves() -> bool:
        return not resolver.is_away and await answers(node.port)

    async with serving(url_of(node, resolver.name), timeout=DEADLINE) as visitor:
        if known:
            assert await visitor.counted_again() == 1
        async with outage(visitor, lose, resolves):
            await asyncio.sleep(12.3 if hangs else 1.2)
            if not known:
                await asyncio.to_thread(node.start)
            resolver.is_away = False
            if known:
                await asyncio.to_thread(node.start)


async def primary_told_by(port: int) -> int:
    """Return the port of the primary that a sentinel names."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}\r\n".encode())
    lines = [await reader.readline() for _ in range(5)]
    writer.close()
    return int(lines[4])


@pytest.mark.gen_test(timeout=120)
async def test_after_a_failover(folder: Path) -> None:
    group = Group(folder)
    old = group.primary()

    async def is_told() -> bool:
        told = Counter([await primary_told_by(one.port) for one in group.sentinels])
        port, votes = told.most_common(1)[0]
        return port != old.port and votes > 1 and await answers(port, b"ROLE", b"*3")

    async with serving(group.url, timeout=DEADLINE) as visitor:
        assert await visitor.counted_again() == 1
        async with outage(visitor, old.kill, is_told):
            pass


@pytest.mark.parametrize("seconds", [0.0, 1.1, 2.5])
async def test_after_packets_were_lost_and_nobody_was_told(node: Node, seconds: float) -> None:
    """As when a pod's node goes: its connections stay dead when another has its address."""
    with Proxy([node.port]) as proxy:
        async with serving(url_of(proxy), timeout=DEADLINE) as visitor:
            assert await visitor.counted_again() == 1
            lost = proxy.lost()
            async with outage(visitor, lost.__enter__, lambda: answers(proxy.port), off=False):
                await asyncio.sleep(seconds)
                await asyncio.to_thread(lost.__exit__, None, None, None)


async def test_after_what_asked_for_a_connection_was_lost(node: Node) -> None:
    """As when a pod goes. The system asks again by itself, a second later and one or two later."""
    with Proxy([node.port]) as proxy, contextlib.ExitStack() as away:
        async with serving(url_of(proxy), timeout=10) as visitor:
            assert await visitor.counted_again() == 1

            def lose() -> None:
                away.enter_context(proxy.full_backlog())

            is_back = functools.partial(answers, proxy.port)
            async with outage(visitor, lose, is_back, off=False, ours=0.4):
                await asyncio.sleep(1.05)
                await asyncio.to_thread(away.close)


async def test_an_idle_connection_that_is_dead_is_replaced_before_a_visit_meets_it(
    node: Node, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(counter.opening.DEAD_AFTER, socket.TCP_KEEPIDLE, 1)
    with Proxy([node.port]) as proxy:
        async with serving(url_of(proxy), timeout=DEADLINE) as visitor:
            assert await visitor.counted_again() == 1
            made = proxy.accepted
            with proxy.lost():
                pass
            await eventually(lambda: proxy.accepted > made)
