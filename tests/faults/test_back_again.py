"""Redis is back: our own part, from when its address answers to the first page with a number.

What the platform takes until then, for another pod, its start or DNS, is not in these seconds.
"""

import asyncio
import contextlib
import functools
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import counter.opening
from tests.faults.test_sentinel import Group
from tests.support import Caplog, Patch
from tests.support.names import Names, names_of
from tests.support.nodes import Node
from tests.support.page import serving
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, eventually, within

NAME = "redis.invalid"


@pytest.fixture
def node(folder: Path) -> Node:
    one = Node(folder, "--appendonly", "yes")
    one.start()
    return one


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


async def moment(is_so: Callable[[], Awaitable[bool]]) -> float:
    """Return when a look first says yes. One that is stuck does not hold the next one up."""
    looks: list[asyncio.Future[bool]] = []
    while not any(look.done() and look.result() for look in looks):
        looks.append(asyncio.ensure_future(is_so()))
        await asyncio.sleep(0.02)
    return time.monotonic()


async def assert_soon(
    redis: Node | Proxy,
    lose: Callable[[], object],
    after: float,
    give_back: Callable[[], object],
    *,
    is_back: Callable[[], Awaitable[bool]] | None = None,
    url: str = "",
    known: bool = True,
    off: bool = True,
    ours: float = 1.0,
    timeout: float = 2.0,
    **options: Any,
) -> None:
    """Lose Redis, give it back, and check how soon a page has a number.

    :arg after: seconds for which it is away at least.
    :arg is_back: tells whether it answers again.
    :arg known: whether it was there before.
    :arg off: whether the counter is off before it comes back.
    :arg ours: seconds of our own part, at most.
    :arg timeout: seconds that a visit may wait; the default of the server.
    """
    counted = 0.0  # when a page last had a number

    async def visit() -> None:
        nonlocal counted
        while True:
            number = await visitor.visit()
            counted = time.monotonic() if number else counted
            await asyncio.sleep(0.02)

    url = url or f"redis://127.0.0.1:{redis.port}"
    async with serving(url, timeout=timeout, **options) as visitor:
        assert not known or await visitor.counted_again() == 1
        visiting = [asyncio.create_task(visit()) for _ in range(4)]
        try:
            await asyncio.to_thread(lose)
            await eventually(lambda: not off or not visitor.visits.up)
            watching = asyncio.create_task(moment(is_back or (lambda: answers(redis.port))))
            await asyncio.sleep(after)
            await asyncio.to_thread(give_back)
            back = await asyncio.wait_for(watching, PATIENCE)
            await within(ours, eventually(lambda: counted > back))
            print(f"counted {counted - back:.2f} s after Redis was back")
        finally:
            for one in visiting:
                one.cancel()
            await asyncio.gather(*visiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("lose", "give_back", "after"),
    [
        *((Node.kill, Node.start, after) for after in (0.3, 2)),
        # A probe that is stuck is given up after 5 s.
        *((Node.hang, Node.go_on, after) for after in (0.1, 3, 10)),
    ],
)
async def test_after_connections_were_refused_or_it_hung(
    node: Node, lose: Callable[[Node], None], give_back: Callable[[Node], None], after: float
) -> None:
    await assert_soon(node, lambda: lose(node), after, lambda: give_back(node))


async def test_after_it_loaded_its_data(folder: Path, caplog: Caplog) -> None:
    # Microseconds that each key takes, and bytes after which it answers others meanwhile.
    words = "--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"
    node = Node(folder, *words)
    node.start()
    node.client.mset({f"key-{i}": "x" * 100 for i in range(500)})
    node.client.save()
    await assert_soon(node, node.kill, 0, node.start)
    assert "loading" in caplog.text


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

    write = functools.partial(file.write_text, "new")
    await assert_soon(node, change, 1.2, write, is_back=agree, password=file.read_text)


@pytest.fixture
def names() -> Iterator[Names]:
    yield from names_of({NAME: ["127.0.0.1"]})


@pytest.mark.parametrize("known", [False, True], ids=["never known", "known before"])
@pytest.mark.parametrize("hangs", [False, True])
async def test_after_its_name_did_not_resolve(
    node: Node, names: Names, known: bool, hangs: bool
) -> None:
    def lose() -> None:
        node.kill()
        names.hanging |= {NAME} if hangs else set()
        names.addresses[NAME] = ["127.0.0.1"] if hangs else []

    def give_back() -> None:
        node.start()
        names.hanging.clear()
        names.addresses[NAME] = ["127.0.0.1"]

    async def is_back() -> bool:
        return bool(names.addresses[NAME]) and not names.hanging and await answers(node.port)

    url = f"redis://{NAME}:{node.port}"
    if not known:
        lose()
    after = 3.1 if hangs else 1.2
    lost = lose if known else lambda: None
    await assert_soon(node, lost, after, give_back, is_back=is_back, url=url, known=known)


@pytest.mark.gen_test(timeout=120)
async def test_after_a_failover(folder: Path) -> None:
    group = Group(folder)
    old = group.primary()

    async def is_told() -> bool:
        told = Counter([await asyncio.to_thread(one.primary) for one in group.sentinels])
        port, votes = told.most_common(1)[0]
        return port != old.port and votes > 1 and await answers(port, b"ROLE", b"*3")

    await assert_soon(old, old.kill, 0, lambda: None, is_back=is_told, url=group.url)


@pytest.mark.parametrize(
    ("how", "after", "ours", "timeout"),
    [
        # As when a pod's node goes: its connections stay dead when another has its address.
        *((Proxy.lost, after, 1.0, 2) for after in (0.0, 1.1, 2.5)),
        # What asks for a connection is lost. The system asks again by itself, a second later and
        # one or two later.
        (Proxy.full_backlog, 1.05, 0.4, 10),
    ],
)
async def test_after_packets_were_lost_and_nobody_was_told(
    node: Node, how: Callable[[Proxy], Any], after: float, ours: float, timeout: float
) -> None:
    with Proxy([node.port]) as proxy, contextlib.ExitStack() as away:

        def lose() -> None:
            away.enter_context(how(proxy))

        await assert_soon(proxy, lose, after, away.close, off=False, ours=ours, timeout=timeout)


async def test_an_idle_connection_that_is_dead_is_replaced_before_a_visit_meets_it(
    node: Node, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(counter.opening.DEAD_AFTER, socket.TCP_KEEPIDLE, 1)
    with Proxy([node.port]) as proxy:
        async with serving(f"redis://127.0.0.1:{proxy.port}", timeout=2) as visitor:
            assert await visitor.counted_again() == 1
            made = proxy.accepted
            with proxy.lost():
                pass
            await eventually(lambda: proxy.accepted > made)
