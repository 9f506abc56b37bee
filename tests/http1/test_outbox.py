"""Answers leave at once, or together at the end of a turn; nobody can tell but by the time."""

import asyncio
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError

import http1
from http1.outbox import MANY, SMALL, TURNS, Outbox
from tests.support.served import GET, Serve, get


class Transport:
    """Keeps what was written on it."""

    def __init__(self, closing: bool = False) -> None:
        self.written: list[bytes] = []
        self.is_closing = lambda: closing

    def write(self, data: bytes) -> None:
        self.written.append(data)


async def sent_at_once(outbox: Outbox, clients: list[Transport]) -> int:
    """Send each an answer, and return how many got it at once; then the turn ends."""
    gone: Any = Transport(closing=True)
    for client in clients:
        outbox.send(client, b"answer")  # type: ignore[arg-type]
    at_once = sum(len(client.written) for client in clients)
    if not at_once:
        outbox.send(gone, b"answer")
    await asyncio.sleep(0)
    for client in clients:
        assert client.written == [b"answer"]
        client.written.clear()
    assert not gone.written
    return at_once


async def test_few_answers_leave_at_once_and_many_together_but_to_who_has_gone(
    io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http1.outbox.MANY", MANY)
    outbox, clients = Outbox(), [Transport() for _ in range(2 * MANY)]
    for some, expected in (clients[:1], 1), (clients, 0), (clients[:1], 1):
        for _ in range(4 * TURNS):
            at_once = await sent_at_once(outbox, some)
        assert at_once == expected


@pytest.mark.parametrize("path", ["/", "/missing", "/bare/204"])
async def test_any_whole_answer_may_leave_with_others(
    path: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that a handler writes bit by bit, as Tornado's own handlers do."""
    served = serve()
    whole: list[bytes] = []
    send = served.server.outbox.send
    monkeypatch.setattr(
        served.server.outbox, "send", lambda client, one: (whole.append(one), send(client, one))
    )
    answer = await served.ask(get(path))
    assert [one.endswith(answer.body) for one in whole] == [True]


class Then(http1.RequestHandler):
    """Answers, and does what the test says in the same turn of the loop."""

    EAGER_START = True

    async def get(self) -> None:
        wire = self.request.connection.stream  # type: ignore[union-attr]
        self.finish("x" * next(self.settings["sizes"]))
        self.settings["then"](wire)


@pytest.mark.parametrize(
    ("then", "follows"),
    [
        (lambda wire: wire.close(), b""),
        (lambda wire: wire.close_if_idle(), b""),
        (lambda wire: wire.end(), b""),
        (lambda wire: wire.write(b"after"), b"after"),
    ],
    ids=["close", "close_if_idle", "end", "write"],
)
async def test_an_answer_is_sent_whatever_is_done_to_the_connection_in_its_turn(
    then: Any, follows: bytes, serve: Serve
) -> None:
    app = http1.Application([("/", Then)], then=then, sizes=iter([5]))
    client = (await serve(app=app).connect()).send(GET)
    assert (await client.reader.readuntil(b"xxxxx" + follows)).endswith(b"\r\n\r\nxxxxx" + follows)


async def test_what_is_written_on_a_closed_connection_fails(serve: Serve) -> None:
    written = []

    def then(wire: Any) -> None:
        wire.close()
        written.append(wire.write(b"after"))

    app = http1.Application([("/", Then)], then=then, sizes=iter([5]))
    assert await (await serve(app=app).connect()).send(GET).rest()
    assert isinstance(written[0].exception(), StreamClosedError)


async def test_pipelined_answers_come_in_order_also_where_one_is_too_large_to_wait(
    serve: Serve,
) -> None:
    sizes = [1, 2 * SMALL, 2, 3 * SMALL, 3]
    app = http1.Application([("/", Then)], then=lambda wire: None, sizes=iter(sizes))
    client = (await serve(app=app).connect()).send(GET * len(sizes))
    client.half_close()  # it sends no more
    assert [len((await client.answer()).body) for _ in sizes] == sizes
