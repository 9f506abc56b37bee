"""TLS: certificates, handshakes, and how it is closed."""

import asyncio
import contextlib
import logging
import socket
import ssl

import pytest
from tornado.web import Application, RequestHandler

from http1.server import TLS_WARNINGS_EVERY
from tests.faults.test_clients import TLS_HELLO
from tests.support import Caplog
from tests.support.served import CLOSE, GET, Serve, Served, get, two_sides
from tests.support.waiting import PATIENCE, eventually


class Certificate(RequestHandler):
    def get(self) -> None:
        self.write(self.request.get_ssl_certificate() | {"protocol": self.request.protocol})


async def test_client_of_tls_shows_its_certificate(serve_tls: Serve) -> None:
    client = await serve_tls(app=Application([("/", Certificate)])).connect()
    told = (await client.ask(CLOSE)).json
    assert (told["subjectAltName"], told["protocol"]) == ([["DNS", "client.example"]], "https")
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
    client = await serve_tls(**limits).connect(in_clear=True)
    assert b"HTTP" not in await client.send(sent).rest()


async def test_failing_handshakes_are_one_warning_a_minute(
    serve_tls: Serve, caplog: Caplog
) -> None:
    caplog.set_level(logging.DEBUG, "tornado.general")
    served = serve_tls()

    async def fail() -> str:
        seen = len(caplog.records)
        await (await served.connect(in_clear=True)).send(GET).rest()
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
    begun = (await served.connect(in_clear=True)).send(TLS_HELLO[:9])  # a handshake
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


@pytest.mark.parametrize("path", ["/", "/waiting"])
async def test_close_notify_behind_a_request_lets_the_client_go(
    path: str, serve_tls: Serve
) -> None:
    """It might still read (RFC 8446, 6.1), but the event loop ends both sides."""
    served = serve_tls()

    def ask() -> None:
        with visit(served) as client, contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # both in one packet
            client.sendall(get(path))
            client.unwrap()

    await asyncio.to_thread(ask)
    assert served.state.begun == [path]
    served.state.go_on.set()
    await eventually(lambda: not served.server.connections)
