"""TLS: certificates, handshakes, and how it is closed."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

import pytest

from http1.server import TLS_WARNINGS_EVERY
from tests.faults.test_clients import TLS_HELLO
from tests.support.served import CLOSE, GET, Serve, Served, get, two_sides
from tests.support.waiting import PATIENCE, eventually


async def test_client_of_tls_shows_its_certificate(serve_tls: Serve) -> None:
    client = await serve_tls().connect()
    answer = await client.ask(get("/certificate"))
    assert answer.json["names"] == [["DNS", "client.example"]]
    assert (await client.ask(CLOSE)).json["protocol"] == "https"
    assert await client.rest() == b""


@pytest.mark.parametrize(
    ("sent", "limits"),
    [
        (GET, {}),
        (TLS_HELLO[:9], {"idle_connection_timeout": 0.1}),
        (TLS_HELLO[:9], {"header_timeout": 0.1}),
    ],
    ids=["no TLS", "idle", "header"],
)
async def test_handshake_that_is_none_or_does_not_end_is_closed(
    sent: bytes, limits: dict[str, float], serve_tls: Serve
) -> None:
    client = await serve_tls(**limits).connect_in_clear()
    assert b"HTTP" not in await client.send(sent).rest()


async def test_handshakes_that_fail_are_one_warning_a_minute(
    serve_tls: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tornado.general")
    served = serve_tls()

    async def fail() -> str:
        seen = len(caplog.records)
        await (await served.connect_in_clear()).send(GET).rest()
        await eventually(lambda: len(caplog.records) > seen)
        return caplog.records[-1].levelname

    assert [await fail() for _ in range(3)] == ["WARNING", "DEBUG", "DEBUG"]
    assert all("SSL Error" in record.message for record in caplog.records)
    served.server._warn_of_tls_at -= TLS_WARNINGS_EVERY
    assert await fail() == "WARNING"


def visit(served: Served, sent: bytes = b"") -> ssl.SSLSocket:
    """As a client does that looks at its connection only when it needs it again.

    It tells the close of TLS, which is the end, from TCP's alone, which is an error.
    """
    plain = socket.create_connection(("127.0.0.1", served.port), PATIENCE)
    context = two_sides().client
    client = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
    client.sendall(sent)
    assert not sent or client.recv(65536).startswith(b"HTTP/1.1 200")
    return client


@pytest.mark.parametrize("sent", [GET, b""], ids=["asked", "silent"])
@pytest.mark.parametrize("drains", [True, False], ids=["draining", "idle"])
async def test_idle_client_is_told_of_the_close_of_tls_and_not_waited_for(
    drains: bool, sent: bytes, serve_tls: Serve
) -> None:
    served = serve_tls(idle_connection_timeout=60.0 if drains else 0.2)
    begun = (await served.connect_in_clear()).send(TLS_HELLO[:9])  # a handshake
    await served.seen()
    with await asyncio.to_thread(visit, served, sent) as client:
        if drains:
            async with asyncio.timeout(PATIENCE):
                await served.server.drain(3600)
        assert await asyncio.to_thread(client.recv, 1) == b""
    assert await begun.rest() == b""
    await eventually(lambda: not served.server.connections)


async def test_client_that_does_not_answer_the_close_of_tls_is_closed(serve_tls: Serve) -> None:
    served = serve_tls(write_timeout=0.1)
    with await asyncio.to_thread(visit, served, CLOSE):
        await eventually(lambda: not served.server.connections)


@pytest.mark.parametrize("path", [b"/", b"/waiting"])
async def test_client_of_tls_that_sends_close_notify_behind_its_request_is_let_go(
    path: bytes, serve_tls: Serve
) -> None:
    """It might still read (RFC 8446, 6.1), but the event loop ends both sides."""
    served = serve_tls()

    def ask() -> None:
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = two_sides().client.wrap_bio(received, sent, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as client:
            while not is_done(session.do_handshake):
                client.sendall(sent.read())
                received.write(client.recv(65536))
            session.write(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            is_done(session.unwrap)
            client.sendall(sent.read())  # in one packet
            with contextlib.suppress(ConnectionResetError):
                while client.recv(65536):
                    pass

    await asyncio.to_thread(ask)
    assert served.state.begun == [path.decode()]
    served.state.go_on.set()
    await eventually(lambda: not served.server.connections)


def is_done(step: Callable[[], object]) -> bool:
    """Take a step of TLS; tell whether it waits for nothing that the other side sends."""
    try:
        step()
    except ssl.SSLWantReadError:
        return False
    return True
