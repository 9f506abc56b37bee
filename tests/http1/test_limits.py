"""What takes too long is told so and closed; idle clients are closed; nobody else is."""

import asyncio

import pytest

from tests.support.served import EXPECT, GET, WAITING, Serve, get, post
from tests.support.site import MUCH
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("header_timeout", GET[:1]),
        ("header_timeout", GET + GET[:-1]),
        ("body_timeout", post() + b"hell"),
        ("body_timeout", post(EXPECT)),
        ("idle_connection_timeout", b""),
        ("idle_connection_timeout", b"\r\n"),
        ("idle_connection_timeout", GET),
    ],
    ids=repr,
)
async def test_what_takes_too_long_is_told_so_and_closed_and_idle_ones_are_closed(
    limit: str, sent: bytes, serve: Serve
) -> None:
    options = {"idle_connection_timeout": 60.0, "header_timeout": 60.0, "body_timeout": 60.0}
    client = await serve(**options | {limit: 0.1}).connect()
    data = await client.send(sent).rest()
    assert data.count(b"HTTP/1.1 200 OK") == sent.count(GET)
    has_begun = limit != "idle_connection_timeout"
    assert data.count(b"HTTP/1.1 408 Request Timeout\r\n\r\n") == has_begun
    assert b"400" not in data


async def test_each_has_its_own_time_and_one_that_ends_takes_no_others(serve: Serve) -> None:
    served = serve(idle_connection_timeout=0.15, header_timeout=0.15)
    clock = asyncio.get_running_loop().time
    for _ in range(2):  # the second time, all were looked at that had come
        clients, last = [], []
        for _ in range(3):
            begun = clock()
            clients += [(await served.connect(), begun), (await served.connect(), begun)]
            last.append((await served.connect()).send(GET[:9]))
            (await served.connect()).close()
            await asyncio.sleep(0.04)
        for client, begun in clients:
            assert await client.rest() == b""
            assert clock() - begun > 0.14
        for client in last:
            assert b" 408 " in await client.rest()


async def test_time_of_a_header_begins_with_its_first_byte_and_ends_no_answer(serve: Serve) -> None:
    served = serve(idle_connection_timeout=0.1, header_timeout=0.1, body_timeout=0.1)
    client, slow = await served.connect(), await served.connect()
    refused = asyncio.ensure_future(slow.send(GET[:1]).rest())
    for at in range(1, 4):
        await asyncio.sleep(0.075)  # it is time that is measured
        assert (await client.ask(GET)).status == 200
        slow.send(GET[at : at + 1])
    assert b" 408 " in refused.result()
    client.send(WAITING)
    await asyncio.sleep(0.2)
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"


@pytest.mark.parametrize("path", ["/pieces", "/whole"])
async def test_client_that_reads_nothing_goes_before_an_idle_one(path: str, serve: Serve) -> None:
    served = serve(idle_connection_timeout=600.0, write_timeout=0.1)
    (await served.connect(limit=1024)).send(get(path))
    await eventually(lambda: served.state.begun)
    await eventually(lambda: not served.server.connections)
    await eventually(lambda: served.state.is_over or path == "/whole")
    assert served.state.written < MUCH  # flush waited for it
    assert served.state.left == (path == "/pieces")
