"""Runs the server in this process, with visitors, but without a kernel and without Redis.

The clients and Redis are transports in Python. The program's own module `server` makes the server.
Connections come through two public methods of asyncio's event loop. The program fails if a page
does not show the next visit's number, or if Redis gets an unknown command.
"""

import asyncio
import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

import config
import server
from watch import Metrics, configure_logs

#: How clients ask for a page: on a kept connection or on a new one, without a log; or on a kept
#: one, with a log as text or as JSON.
KEPT, NEW, LOGGED, JSON = "kept", "new", "logged", "json"

#: Pages that warm the server up.
WARM_UP = 640

#: Turns of the event loop: far more than all clients need to get their answers.
TURNS = 100

_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n%b\r\n"
_PAGE = re.compile(rb"HTTP/1\.1 200 OK\r\n.*\r\n\r\n<h3>Hello .*<b>Visits:</b> (\d+)", re.S)


class _Transport(asyncio.Transport):
    """The server's end of a connection, with the methods of `asyncio.Transport`."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.is_closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class _Client(_Transport):
    """A client that asks for pages, and keeps the answers."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.answers: list[Any] = []
        self.ask: Callable[[bytes], None] = protocol.data_received

    def write(self, data: Any) -> None:
        self.answers.append(data)


class _Redis(_Transport):
    """A Redis that only knows the script of `counter`."""

    counter = 0

    def write(self, data: Any) -> None:
        words = bytes(data).split(b"\r\n")
        replies, at = [], 0
        while at < len(words) - 1:
            end = at + 1 + 2 * int(words[at][1:])
            replies.append(self._reply(words[at + 2 : end : 2]))
            at = end
        loop = asyncio.get_running_loop()
        loop.call_soon(self.protocol.data_received, b"".join(replies))

    def _reply(self, command: list[bytes]) -> bytes:
        match command:
            case [b"EVALSHA" | b"EVAL", _, b"3", b"counter", _, _, token]:
                self.counter += int(token.split(b" ")[1])
                return b":%d\r\n" % self.counter
            case [b"EVALSHA" | b"EVAL", *_]:  # the scripts that report figures
                return b":1\r\n"
            case [b"INFO", *_]:
                return b"$0\r\n\r\n"
        raise AssertionError(f"bench/visitors.py does not know what Redis was sent: {command}")


class Visitors:
    """The server, and clients that ask it for pages.

    :arg kind: one of the kinds above.
    :arg clients: how many clients ask at once.
    """

    def __init__(self, kind: str, clients: int) -> None:
        self._number = clients
        settings = config.Settings(
            redis_url="redis://127.0.0.1:1/0",
            access_log=kind in (LOGGED, JSON),
            log_format="json" if kind == JSON else "text",
        )
        if settings.access_log:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process runs
            configure_logs(settings.log_format, settings.log_level)
        metrics = Metrics()
        self._visits = server.new_visits(settings, metrics)
        app = server.make_app(settings, self._visits, None, metrics)
        self._server = server.new_server(settings, app)
        self._sock = socket.socket()
        self._is_new = kind == NEW
        self._request = _REQUEST % (b"Connection: close\r\n" if self._is_new else b"")
        self._clients: list[_Client] = []
        self._pages = 0

    async def begin(self) -> None:
        """Connect to Redis, and warm the server up."""
        await self._visits.start(60)
        assert self._visits.up, self._visits.reason
        server.collect_less_garbage()
        if not self._is_new:
            self._clients = await self._connect()
        await self.ask(WARM_UP)

    async def _connect(self) -> list[_Client]:
        clients: list[_Client] = []
        loop: Any = asyncio.get_running_loop()
        loop.accepted = clients
        for port in range(self._number):
            self._server.handle_connection(self._sock, ("127.0.0.1", port))
        await _turn_until(lambda: len(clients) == self._number)
        return clients

    async def ask(self, pages: int) -> None:
        """Ask for pages. All clients ask at once, and again when all have their answers.

        :arg pages: how many, a multiple of the number of clients.
        :raises AssertionError: when a page does not show the next visit's number.
        """
        for _ in range(pages // self._number):
            clients = await self._connect() if self._is_new else self._clients
            for client in clients:
                client.ask(self._request)
            last = clients[-1].answers
            for _ in range(TURNS):  # no function call here: it would add to the figures
                await asyncio.sleep(0)
                if last:
                    break
            if self._is_new:
                await _turn_until(lambda: not self._server.connections)
            self._take(clients)

    def _take(self, clients: list[_Client]) -> None:
        self._pages += len(clients)
        answer = b""
        for client in clients:
            [answer] = client.answers
            client.answers.clear()
        page = _PAGE.fullmatch(answer)
        assert page, answer
        assert int(page[1]) == self._pages, answer


async def _turn_until(is_done: Callable[[], bool]) -> None:
    for _ in range(TURNS):
        if is_done():
            return
        await asyncio.sleep(0)
    raise AssertionError("a connection does not come, or does not go")


def new_loop() -> asyncio.AbstractEventLoop:
    """Return the server's event loop, but its connections lead to the transports above."""
    before = server.new_event_loop()
    before.close()

    class Loop(type(before)):  # type: ignore[misc]
        accepted: list[_Client]

        async def connect_accepted_socket(self, factory: Any, sock: Any, **tls: Any) -> Any:
            protocol = factory()
            client = _Client(protocol)
            protocol.connection_made(client)
            self.accepted.append(client)
            return client, protocol

        async def create_connection(self, factory: Any, *where: Any, **options: Any) -> Any:
            protocol = factory()
            redis = _Redis(protocol)
            protocol.connection_made(redis)
            return redis, protocol

    return Loop()
