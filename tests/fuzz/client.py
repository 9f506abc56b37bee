"""Drives one `http1.ClientConnection` without a network: transport, time and client are ours."""

import asyncio
import enum
import selectors
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

from tornado.http1connection import HTTP1ConnectionParameters

from http1 import ClientConnection, Limits
from http1.outbox import Outbox
from tests.fuzz.application import Application, Request

#: Small, so that short inputs meet the limits; the times differ, to be told apart.
LIMITS = Limits(
    HTTP1ConnectionParameters(chunk_size=64, max_header_size=1024, body_timeout=20.0),
    max_body_size=600,
    idle_timeout=75.0,
    header_timeout=10.0,
    write_timeout=60.0,
    refusal=lambda status, why, accept: ({}, f"{status} {why}".encode()),
)

#: Seconds after which each of these times is over.
LONG = 100.0

#: Turns of the loop in which something has to happen, where it is not a time that is waited for.
PATIENCE = 12

#: Bytes that a transport keeps for a client before and after the application waits for it.
HIGH, LOW = 256, 64


class Hang(AssertionError):
    """Nothing happens any more, and something should."""


class NoSelector(selectors.SelectSelector):
    """Asks the system nothing, as no socket is used: it would take a third of the time."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout != 0:
            raise Hang("the loop has nothing to do, and would wait")
        return []


class Loop(asyncio.SelectorEventLoop):
    """asyncio's, whose time passes when it is told."""

    now = 0.0

    def __init__(self) -> None:
        self.failures: list[str] = []
        super().__init__(NoSelector())
        self.set_exception_handler(lambda _, context: self.failures.append(str(context)))

    def time(self) -> float:
        return self.now

    def timers_left(self) -> list[asyncio.TimerHandle]:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return [one for one in timers if not one.cancelled() and one.when() > self.now]

    def close(self) -> None:
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.run_until_complete(asyncio.sleep(0))
        super().close()


class End(enum.Enum):
    """What a client does when it has sent everything."""

    STAY = enum.auto()
    HALF_CLOSE = enum.auto()
    RESET = enum.auto()


class Manner(NamedTuple):
    """How a client goes about it."""

    end: End = End.STAY
    turns: int = 1  # of the loop, before each piece that it sends
    reads: int = 1 << 20  # bytes a turn
    is_one_of_many: bool = False  # its answers leave at the end of the turn


class Outcome(NamedTuple):
    """What came of it."""

    requests: list[Request]  # those that the application was to answer
    received: bytes  # by the client


class Transport(asyncio.Transport):
    """As asyncio's are, but that the client takes only what it is told to."""

    is_reading_paused = is_lost = False
    _is_closing = _has_eof = _is_writing_paused = False
    _high = HIGH

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop, self._protocol = loop, protocol
        self.received, self._buffer = bytearray(), bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._has_eof, "written after the end"
        assert not self._is_closing, "written after close"
        self._buffer += data
        self._pause_if_full()

    def _pause_if_full(self) -> None:
        if len(self._buffer) > self._high and not self._is_writing_paused:
            self._is_writing_paused = True
            self._protocol.pause_writing()

    def read(self, size: int) -> None:
        """Let the client read."""
        self.received += self._buffer[:size]
        del self._buffer[:size]
        if self._is_writing_paused and len(self._buffer) <= min(self._high, LOW):
            self._is_writing_paused = False
            self._protocol.resume_writing()
        if self._is_closing and not self._buffer:
            self._lose()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert low is None
        if high == 0:  # any other is for more than short inputs
            self._high = 0
            self._pause_if_full()

    def write_eof(self) -> None:
        self._has_eof = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._is_closing = True

    def abort(self, error: Exception | None = None) -> None:
        self._is_closing = True
        self._is_writing_paused = False  # nobody is told to go on any more
        self._buffer.clear()
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None = None) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._protocol.connection_lost(error)

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False


async def drive(
    pieces: list[bytes], manner: Manner, alive: MutableMapping[object, object]
) -> Outcome:
    """Send pieces on a connection until it is closed.

    :arg alive: gets the connection, and what is sent on it.
    """
    loop: Any = asyncio.get_running_loop()
    application = Application(Outbox(usual=1e9 if manner.is_one_of_many else 0))
    connection: Any = ClientConnection(application, LIMITS, None, None)  # type: ignore[arg-type]
    transport = Transport(loop, connection)
    connection.connection_made(transport)
    alive[connection] = pieces, manner

    async def turn() -> None:
        await asyncio.sleep(0)
        transport.read(manner.reads)

    async def until(condition: Callable[[], bool] = lambda: False) -> bool:
        """Wait until a condition is true, and tell so, or until nothing goes on but time."""
        quiet = 0
        while quiet < PATIENCE and not condition():
            before = len(transport.received), application.steps
            await turn()
            is_same = before == (len(transport.received), application.steps)
            quiet = quiet + 1 if is_same and not transport.get_write_buffer_size() else 0
        return condition()

    async def is_open() -> bool:
        """Wait until something may be sent; tell whether anybody is there to read it."""
        if not await until(lambda: transport.is_closing() or not transport.is_reading_paused):
            raise Hang("reading is paused for good")
        return not transport.is_closing()

    for piece in pieces:
        for _ in range(manner.turns):
            await turn()
        if await is_open():
            connection.data_received(piece)
    if manner.end is End.RESET:
        transport.abort(ConnectionResetError())
    elif manner.end is End.HALF_CLOSE and await is_open() and not connection.eof_received():
        transport.close()
    await until()
    for _ in range(3):
        if not transport.is_lost:
            loop.now += LONG
            await until()
    if not transport.is_lost:
        raise Hang("no timer closes the connection")
    application.check_ended()
    return Outcome(application.requests, bytes(transport.received))
