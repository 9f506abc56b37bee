"""Names of several addresses, of which the first hangs, and names whose look-ups hang."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import trustme

import counter.probing
import counter.resolver
from counter import Visits
from counter.connector import Connector
from counter.resolver import MAX_LOOK_UPS, resolve
from replicas import Reader, Snapshot
from tests.support import Patch
from tests.support.counting import reading
from tests.support.fake_redis import FakeRedis
from tests.support.names import Names, look_ups, names_of
from tests.support.nodes import SERVICE, Node, Sentinel
from tests.support.page import serving
from tests.support.ports import full_backlog, held_port
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, eventually, within

NAME = "redis.invalid"

#: How a primary says that it is one.
PRIMARY = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"

#: Where nobody answers; what does listens on the second.
HUNG, WELL = "127.0.0.2", "127.0.0.1"


@pytest.fixture
def names() -> Iterator[Names]:
    yield from names_of({NAME: [HUNG, WELL]})


@pytest.fixture
def tls(folder: Path) -> ssl.SSLContext:
    """What a server speaks that has the name, and the address; its authority is in the folder."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert(NAME, WELL).configure_cert(context)
    return context


def naming(port: int) -> bytes:
    """What a sentinel answers that names this port."""
    return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)


@contextlib.contextmanager
def silent(host: str, port: int) -> Iterator[socket.socket]:
    """Take connections, as the system does for a server that hangs, and never answer."""
    with held_port(host, port) as listening:
        listening.listen(100)
        yield listening


Hanging = Callable[[str, int], contextlib.AbstractContextManager[object]]

of_each_kind = pytest.mark.parametrize("hanging", [full_backlog, silent])


async def snapshot_of(visits: Visits) -> Snapshot:
    """Look as the live page does: again, where a busy machine was too slow for a look."""
    with reading(visits) as reader:
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(TimeoutError):
                    return await reader.read()


@of_each_kind
@pytest.mark.parametrize("timeout", [0.5, 1, 10])
@pytest.mark.usefixtures("names")
async def test_an_address_that_hangs_is_no_hindrance_to_visits_nor_to_those_who_watch(
    folder: Path, timeout: float, hanging: Hanging
) -> None:
    node = Node(folder)
    node.start()
    with hanging(HUNG, node.port):
        async with serving(f"redis://{NAME}:{node.port}", timeout=timeout) as visitor:
            assert await visitor.counted_again() == 1
            node.client.client_kill_filter(_type="normal", skipme=True)
            assert await visitor.counted_again() == 2
            assert (await snapshot_of(visitor.visits)).total == 2


@pytest.mark.usefixtures("names", "patient_probes")
async def test_what_lost_is_closed_and_was_sent_nothing_that_counts(fake: FakeRedis) -> None:
    with FakeRedis(at=(HUNG, fake.port)) as hung:
        hung.silent = True
        async with serving(f"redis://{NAME}:{fake.port}") as visitor:
            assert await visitor.visit() == 1
            await eventually(lambda: hung.connections[0].closed and len(fake.open()) == 1)
    assert [command.words for command in hung.commands] == [("PING",)]


@pytest.mark.usefixtures("names", "patient_probes")
async def test_an_address_that_wins_late_is_still_taken(fake: FakeRedis) -> None:
    """Nobody is at the second: the first has all of the time, not a share of it."""
    with FakeRedis(at=(HUNG, fake.port)) as slow, slow.held() as let_go:
        fake.refuse()
        async with serving(f"redis://{NAME}:{fake.port}") as visitor:
            visit = asyncio.create_task(visitor.visit())
            await eventually(lambda: slow.commands)
            await asyncio.sleep(0.5)  # the second attempt has failed meanwhile
            let_go()
            assert await visit == 1


@pytest.mark.usefixtures("patient_probes")
@pytest.mark.parametrize("host", [NAME, f"{NAME}."])
async def test_tls_finds_the_address_that_answers_and_has_the_name_without_its_dot(
    names: Names, fake: FakeRedis, folder: Path, tls: ssl.SSLContext, host: str
) -> None:
    names.addresses[host] = [HUNG, WELL]
    asked: list[str] = []
    tls.sni_callback = lambda _, name, __: asked.append(name)  # type: ignore[arg-type,assignment]
    with Proxy([fake.port], tls) as proxy, silent(HUNG, proxy.port):
        url = f"rediss://{host}:{proxy.port}?ssl_ca_certs={folder}/ca.pem"
        async with serving(url) as visitor:
            assert await visitor.visit() == 1
            assert {*asked} == {NAME}


@of_each_kind
async def test_sentinels_and_the_primary_that_they_name_may_have_addresses_that_hang(
    names: Names, folder: Path, hanging: Hanging
) -> None:
    hung = [f"127.0.0.{i}" for i in range(2, 10)]  # more than there are tenths of a second
    names.addresses[NAME] = [*hung, WELL]
    node, sentinel = Node(folder), Sentinel(folder)
    node.start()
    sentinel.watch(node, quorum=1)
    # It names the primary as it was told: this one has a name (resolve-hostnames).
    named = Proxy([sentinel.port])
    named.to_client.change = lambda data: data.replace(
        b"$9\r\n127.0.0.1\r\n", b"$%d\r\n%b\r\n" % (len(NAME), NAME.encode())
    )
    with named, contextlib.ExitStack() as stack:
        for host in hung:
            stack.enter_context(hanging(host, named.port))
            stack.enter_context(hanging(host, node.port))
        async with serving(f"redis+sentinel://{NAME}:{named.port}/{SERVICE}") as visitor:
            assert await visitor.counted_again(PATIENCE) == 1
            assert (await snapshot_of(visitor.visits)).total == 1


async def test_look_ups_that_hang_are_bounded_for_all_who_ask_and_no_name_starves(
    names: Names, fake: FakeRedis, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(counter.resolver, "HANGS_AFTER", 0.05)
    hosts = ["one.invalid", "two.invalid", "three.invalid"]
    names.addresses |= {host: [WELL] for host in hosts}
    names.hanging |= {*hosts}
    url = "redis+sentinel://" + ",".join(f"{host}:{fake.port}" for host in hosts) + "/mymaster"
    fake.replies |= {"SENTINEL": naming(fake.port), "ROLE": PRIMARY}
    async with serving(url, timeout=1) as visitor:
        reader = Reader(visitor.visits.new_connector())
        assert await visitor.visit() is None

        def shares() -> set[int]:
            return {look_ups().count(host) for host in hosts}

        begun = time.monotonic()
        # In three seconds, with a thread for each that asks, there were 36.
        while time.monotonic() < begun + 3 or shares() != {MAX_LOOK_UPS // 4}:
            with contextlib.suppress(TimeoutError):
                await reader.read()
            assert len(look_ups()) <= MAX_LOOK_UPS
            assert time.monotonic() < begun + PATIENCE, shares()
        # A name that nobody asked for yet has room, and so has each when others have an answer.
        assert await within(1, resolve(NAME)) == [HUNG, WELL]
        names.hanging.clear()
        names.let_go.set()
        assert await visitor.counted_again() == 1


async def test_those_who_ask_for_a_name_share_its_look_up(names: Names) -> None:
    names.hanging.add(NAME)
    asking = [asyncio.create_task(resolve(NAME)) for _ in range(20)]
    await eventually(lambda: names.asked[NAME])
    for one in asking[:10]:
        one.cancel()
    names.hanging.clear()
    names.let_go.set()
    assert await asyncio.gather(*asking[10:]) == [[HUNG, WELL]] * 10
    assert names.asked[NAME] <= 2  # on a busy machine the first hangs for so long


async def test_an_answer_to_what_was_asked_later_is_taken_and_then_asked_anew(names: Names) -> None:
    names.hanging.add(NAME)
    asking = asyncio.create_task(resolve(NAME))
    await eventually(lambda: names.asked[NAME])
    names.hanging.clear()
    assert await within(2, asking) == [HUNG, WELL]
    await eventually(lambda: len(look_ups()) == 1)  # the first, which hangs
    names.addresses[NAME] = [WELL]
    assert await within(0, resolve(NAME)) == [WELL]


async def test_a_look_up_that_fails_at_last_is_no_answer_to_those_who_asked_again(
    monkeypatch: Patch,
) -> None:
    gates = [threading.Event(), threading.Event()]
    turns = iter(gates)

    def getaddrinfo(host: str, *args: object, **options: object) -> list[object]:
        gate = next(turns)
        gate.wait()
        if gate is gates[0]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (WELL, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    asking = []
    for hangs_after in (PATIENCE, 0.0):  # no third one begins, however long the test takes
        monkeypatch.setattr(counter.resolver, "HANGS_AFTER", hangs_after)
        asking.append(asyncio.create_task(resolve(NAME)))
        await asyncio.sleep(0)
        monkeypatch.setattr(counter.resolver, "HANGS_AFTER", PATIENCE)
        await eventually(lambda: len(look_ups()) == len(asking))
    gates[0].set()
    await eventually(lambda: len(look_ups()) == 1)
    gates[1].set()
    assert await asyncio.gather(*asking) == [[WELL]] * 2


async def test_names_that_cannot_be_looked_up_are_a_clear_reason(
    names: Names, monkeypatch: Patch
) -> None:
    async def refused(host: str, why: str) -> None:
        with pytest.raises(OSError, match=why):
            await within(1, resolve(host))

    for host in ("a..b", "a" * 64, "nul\0", "."):
        await refused(host, "cannot resolve")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no thread")))
        await refused(NAME, "no more threads")
    hosts = {f"n{i}.invalid" for i in range(MAX_LOOK_UPS)}
    names.addresses |= {host: [WELL] for host in hosts}
    names.hanging |= hosts
    asking = [asyncio.create_task(resolve(host)) for host in hosts]
    await eventually(lambda: len(look_ups()) == MAX_LOOK_UPS)
    await refused(NAME, f"cannot resolve {NAME}: too many look-ups of names hang")
    names.let_go.set()
    await asyncio.gather(*asking)
    assert await resolve(NAME) == [HUNG, WELL]


async def test_addresses_are_tried_family_by_family_each_once_and_keep_their_link(
    monkeypatch: Patch,
) -> None:
    found = [
        *((socket.AF_INET6, 1, 6, "", (f"2001:db8::{i}", 0, 0, 0)) for i in (1, 2)),
        (socket.AF_INET6, 1, 6, "", ("fe80::1", 0, 0, 4)),
        *((socket.AF_INET, 1, 6, "", (address, 0)) for address in (WELL, HUNG, WELL)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    in_turn = ["2001:db8::1", WELL, "2001:db8::2", HUNG, "fe80::1%4"]
    assert await resolve(NAME) == in_turn


async def test_a_primary_that_hangs_does_not_pile_up_probes_and_counts_when_it_answers(
    fake: FakeRedis, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(counter.probing, "PROBE_EVERY", 0.05)
    monkeypatch.setattr(counter.probing, "STUCK_AFTER", 0.5)
    with FakeRedis() as sentinel:
        sentinel.replies["SENTINEL"], fake.replies["ROLE"] = naming(fake.port), PRIMARY
        fake.silent = True
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
        async with serving(url, timeout=0.5) as visitor:
            assert await visitor.visit() is None
            await eventually(lambda: len(fake.connections) >= 40)
            await eventually(lambda: len(fake.open()) <= 20)  # it hears late of those given up
            fake.refuse()
            await eventually(lambda: "Error 111" in visitor.visits.reason)
            fake.listen()
            await eventually(lambda: visitor.visits.reason == "no answer from Redis in time")
            fake.heal()
            assert await visitor.counted_again() == 1


async def test_a_tls_connection_to_a_server_that_hangs_is_closed_soon(
    folder: Path, tls: ssl.SSLContext
) -> None:
    shaken = threading.Event()

    def take_one() -> None:
        accepted, _ = listening.accept()
        with (
            tls.wrap_socket(accepted, server_side=True) as hung,
            socket.socket(fileno=os.dup(hung.fileno())) as raw,
        ):
            shaken.set()
            raw.settimeout(10)  # asyncio's own patience is half a minute
            while raw.recv(1000):
                pass

    with silent(WELL, 0) as listening:
        url = f"rediss://:secret@{WELL}:{listening.getsockname()[1]}?ssl_ca_certs={folder}/ca.pem"
        taking = asyncio.create_task(asyncio.to_thread(take_one))
        connector = Connector(url, key="counter", timeout=PATIENCE)
        connecting = asyncio.create_task(connector.try_once())
        await eventually(shaken.is_set)
        connecting.cancel()  # as the deadline does
        await taking
