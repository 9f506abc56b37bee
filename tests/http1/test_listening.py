"""Where the server listens, also by TLS, and how it and its connections end."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import socket
import ssl
from pathlib import Path

import pytest
from tornado.netutil import bind_unix_socket
from tornado.web import Application, RequestHandler

from http1.server import TLS_WARNINGS_EVERY
from tests.faults.test_clients import TLS_HELLO
from tests.support import Caplog, Patch
from tests.support.served import CLOSE, GET, WAITING, Client, Serve, Served, get, two_sides
from tests.support.waiting import PATIENCE, eventually


async def test_unix_socket_is_served_without_an_address(serve: Serve, folder: Path) -> None:
    everybody = [ipaddress.ip_network(one) for one in ("0.0.0.0/0", "::/0")]
    served = serve(trusted_proxies=everybody)
    served.server.add_socket(bind_unix_socket(str(folder / "http.sock")))
    reader, writer = await asyncio.open_unix_connection(str(folder / "http.sock"))
    with contextlib.closing(writer):
        client = Client(reader, writer).send(GET + get("/", "X-Forwarded-For: 4.4.4.4") + CLOSE)
        for _ in range(3):
            assert (await client.answer()).json["ip"] == "unix"
        assert await client.rest() == b""


async def test_server_listens_until_it_is_stopped_and_answers_who_came_before(serve: Serve) -> None:
    served = serve()
    served.server.listen(0, "127.0.0.1")
    served.port = served.server.listening_sockets[1].getsockname()[1]
    client = await served.connect()
    queued = socket.create_connection(("127.0.0.1", served.port))  # the loop has not turned
    served.server.stop()
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    for one in client, await served.connect(sock=queued):
        assert (await one.ask(GET)).status == 200


async def test_every_connection_is_closed_whatever_is_under_way(serve: Serve) -> None:
    served = serve()
    clients = [await served.connect() for _ in range(4)]
    for client, sent in zip(clients, [b"", GET[:9], WAITING, get("/pieces")], strict=True):
        client.send(sent)
    await eventually(lambda: len(served.state.begun) == 2)
    await served.server.close_all_connections()
    for client in clients:
        assert b"0\r\n\r\n" not in (await client.rest())[-5:]
    assert served.state.left == 2


async def test_a_request_that_is_late_or_has_arrived_in_part_is_answered_while_the_server_ends(
    serve_either: Serve, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("http1.server.DRAIN_PAUSE", 0)
    monkeypatch.setattr("http1.server.FIRST_REQUEST", PATIENCE)
    monkeypatch.setattr("http1.server.LOOKS", 4000)
    served = serve_either()
    late = socket.create_connection(("127.0.0.1", served.port))
    await eventually(lambda: served.server.connections)
    kept = await served.connect()
    assert (await kept.ask(GET)).status == 200
    half = (await served.connect()).send(GET[:9])
    await served.seen()
    [listening] = served.server.listening_sockets
    draining = asyncio.ensure_future(served.server.drain(60))
    await eventually(lambda: listening.fileno() == -1)
    client = await served.connect(sock=late)
    assert (await client.ask(GET)).headers["connection"] == "close"
    client.close()
    assert await kept.rest() == b""
    assert (await half.ask(GET[9:])).headers["connection"] == "close"
    await draining


async def test_an_answer_that_has_begun_as_the_server_ends_is_the_connections_last(
    serve: Serve,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Begun(RequestHandler):
        async def get(self) -> None:
            self.write("a")
            await self.flush()
            begun.set()
            await go_on.wait()
            self.finish("b")

    served = serve(app=Application([("/", Begun)]))
    client = (await served.connect()).send(GET)
    await begun.wait()
    served.server.draining.set()
    [connection] = served.server._open
    connection.close_if_idle()
    go_on.set()
    answer = await client.answer()
    assert (answer.body, answer.headers.get("connection")) == (b"ab", None)
    assert await client.rest() == b""


async def test_a_request_that_the_loop_has_not_read_is_no_idle_connection(serve: Serve) -> None:
    served = serve()
    client = await served.connect()
    assert (await client.ask(GET)).status == 200
    [connection] = served.server._open
    client.send(GET)  # the loop does not turn
    connection.close_if_idle()
    assert (await client.answer()).status == 200
    connection.close_if_idle()
    assert await client.rest() == b""


async def test_one_accepted_as_all_close_is_closed_too(serve: Serve, monkeypatch: Patch) -> None:
    served = serve()
    left: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: left.append(what.exc_value))
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # in the queue: the loop has not turned
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        served.server.stop()
        await served.server.close_all_connections()
        assert not served.server.connections
        await asyncio.sleep(0)
        gc.collect()
        assert not left


class Certificate(RequestHandler):
    def get(self) -> None:
        self.write(self.request.get_ssl_certificate() | {"protocol": self.request.protocol})


async def test_client_of_tls_shows_its_certificate(serve_tls: Serve) -> None:
    client = await serve_tls(app=Application([("/", Certificate)])).connect()
    told = (await client.ask(CLOSE)).json
    assert (told["subjectAltName"], told["protocol"]) == ([["DNS", "client.example"]], "https")
    assert await client.rest() == b""


async def test_handshake_that_does_not_end_is_closed(serve_tls: Serve) -> None:
    for limit in "idle_connection_timeout", "header_timeout":
        client = await serve_tls(**{limit: 0.1}).connect(in_clear=True)
        assert await client.send(TLS_HELLO[:9]).rest() == b""


async def test_failed_handshakes_are_one_warning_a_minute(
    serve_tls: Serve, caplog: Caplog, monkeypatch: Patch
) -> None:
    caplog.set_level(logging.DEBUG, "tornado.general")
    served = serve_tls()

    async def fail() -> str:
        seen = len(caplog.records)
        assert b"HTTP" not in await (await served.connect(in_clear=True)).send(GET).rest()
        await eventually(lambda: len(caplog.records) > seen)
        return caplog.records[-1].levelname

    assert [await fail() for _ in range(3)] == ["WARNING", "DEBUG", "DEBUG"]
    assert all("SSL Error" in record.message for record in caplog.records)
    served.server._warn_of_tls_at -= TLS_WARNINGS_EVERY
    monkeypatch.setattr("http1.server.TLS_WARNINGS_EVERY", 0.5)
    for _ in range(2):  # the next one too, though they go on meanwhile
        while await fail() != "WARNING":
            pass


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


@pytest.mark.parametrize("sent", [GET, CLOSE, b""], ids=["asked", "asked last", "silent"])
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
        assert await begun.rest() == b""
        await eventually(lambda: not served.server.connections)
        assert await asyncio.to_thread(client.recv, 1) == b""


async def test_close_notify_behind_a_request_lets_the_client_go(serve_tls: Serve) -> None:
    """It might still read (RFC 8446, 6.1), but the event loop ends both sides."""
    served = serve_tls()

    def ask(path: str) -> None:
        with visit(served) as client, contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # both in one packet
            client.sendall(get(path))
            client.unwrap()

    for path in ("/", "/waiting"):
        await asyncio.to_thread(ask, path)
        assert served.state.begun.pop() == path
        served.state.go_on.set()
        await eventually(lambda: not served.server.connections)
