"""A way to Redis of one's own, so that counting never waits for what is read or told."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import ConnectionError, ResponseError

from counter import Connector, packed, take_over

#: Connections in a row that were closed as they were asked, after which what is asked is refused.
HANG_UPS = 3

#: Seconds that a question to Redis may take, connecting included.
TIMEOUT = 2.0

#: Bytes of a text that are kept; the rest is passed over, so that no key can fill the memory.
MAX_TEXT = 16 * 1024

#: Values that are read in one turn of the loop, which takes a third of a millisecond; then pages
#: get theirs.
VALUES_PER_TURN = 200

_INTEGER = re.compile(rb"[:$*](-?[0-9]{1,19})")

Result = TypeVar("Result")


class RefusedError(ResponseError):
    """A command that Redis does not run, which the message names, and why."""


class Link:
    """Asks Redis; it opens a connection when there is none.

    :arg connector: the way to Redis, used by nobody else.
    """

    def __init__(self, connector: Connector) -> None:
        self.reason = connector.reason
        """Return why asking failed, in one text without secrets."""
        self._connector = connector
        self._replies: _Replies | None = None
        self._asking = False
        self._hang_ups = 0  # in a row

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._replies is not None

    async def within_time(self, talk: Callable[[], Awaitable[Result]]) -> Result:
        """Have it asked within `TIMEOUT`, on a connection that is closed when that fails.

        :arg talk: asks, and returns the result.
        :raises Exception: when there is no Redis, or it does not answer in time.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                if await self._connector.has_moved():
                    self.close()
                if self._replies is None:
                    opened = await self._connector.connect()
                    self._asking = opened.asking
                    self._replies = _Replies()
                    self._replies.writer = take_over(opened.redis, self._replies)
                return await self._heeding_hang_ups(talk)
        except RefusedError:  # every reply has come
            raise
        except BaseException:
            self.close()  # a reply may still come, for nobody
            raise

    async def _heeding_hang_ups(self, talk: Callable[[], Awaitable[Result]]) -> Result:
        """Have it asked; a proxy that does not know a command hangs up on it, each time."""
        try:
            result = await talk()
        except ConnectionError:
            self._hang_ups += 1
            if self._hang_ups < HANG_UPS:
                raise
            self.close()
            raise RefusedError("Redis closes the connection") from None
        self._hang_ups = 0
        return result

    async def ask(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands in one packet, and return their replies; a `RefusedError` is one, too."""
        assert self._replies is not None
        asking = packed("ASKING") if self._asking else b""
        self._replies.writer.transport.write(asking + asking.join(commands))
        found: list[Any] = []
        for command in commands:
            if asking:
                await self._replies.read()
            reply = await self._replies.read()
            found.append(_named(reply, command) if isinstance(reply, ResponseError) else reply)
        return found

    async def ask_at_once(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands that see the same moment, as far as Redis allows; replies as of `ask`."""
        if self._asking:  # which a transaction does not pass on
            return await self.ask(commands)
        *_, done = await self.ask([packed("MULTI"), *commands, packed("EXEC")])
        if not isinstance(done, list):  # it may not, or may not send one of them
            return await self.ask(commands)
        return [
            _named(reply, command) if isinstance(reply, ResponseError) else reply
            for command, reply in zip(commands, done, strict=True)
        ]

    def close(self) -> None:
        """Close the connection; who asks again opens another."""
        replies, self._replies = self._replies, None
        if replies is not None:
            replies.writer.transport.close()


class _Replies(asyncio.Protocol):
    """Reads replies (https://redis.io/docs/latest/develop/reference/protocol-spec/).

    redis-py reads a reply at once, however large: the loop would stop for as long.
    """

    writer: asyncio.StreamWriter

    def __init__(self) -> None:
        self._input = b""
        self._at = 0  # what comes before has been read
        self._more = asyncio.Event()
        self._is_lost = False
        self._left = VALUES_PER_TURN

    def data_received(self, data: bytes) -> None:
        self._input, self._at = self._input[self._at :] + data, 0
        self._more.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._more.set()

    async def read(self) -> Any:
        """Return the next reply; an error is one.

        :raises ConnectionError: when the connection ends before.
        :raises ValueError: when it is none.
        """
        self._left -= 1
        if not self._left:
            self._left = VALUES_PER_TURN
            await asyncio.sleep(0)
        line = await self._line()
        kind = line[:1]
        if kind == b"+":
            return line[1:]
        if kind == b"-":
            return ResponseError(line[1:].decode(errors="replace").removeprefix("ERR "))
        if (integer := _INTEGER.fullmatch(line)) is None:
            raise ValueError(f"Redis answered with {line[:100].decode(errors='replace')!r}")
        number = int(integer[1])
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"$":
            return await self._text(number)
        return [await self.read() for _ in range(number)]

    async def _line(self) -> bytes:
        while (end := self._input.find(b"\r\n", self._at)) < 0:
            if len(self._input) - self._at > MAX_TEXT:
                raise ValueError("Redis sent a reply without an end")
            await self._wait_for_more()
        line, self._at = self._input[self._at : end], end + 2
        return line

    async def _text(self, size: int) -> bytes:
        kept = min(size, MAX_TEXT)
        while len(self._input) < self._at + kept:
            await self._wait_for_more()
        text = self._input[self._at : self._at + kept]
        left = size + 2  # with the end of the line
        while len(self._input) < self._at + left:
            left -= len(self._input) - self._at
            self._at = len(self._input)
            await self._wait_for_more()
        self._at += left
        return text

    async def _wait_for_more(self) -> None:
        if self._is_lost:
            raise ConnectionError("Redis closed the connection")
        self._more.clear()
        await self._more.wait()


def _named(error: ResponseError, command: bytes) -> RefusedError:
    word = command.split(b"\r\n", 3)[2].decode()
    return RefusedError(f"{word}: {error}")


def seconds(time: Sequence[bytes]) -> float:
    """Return the time that Redis tells (https://redis.io/docs/latest/commands/time/).

    :return: seconds since 1970.
    """
    return int(time[0]) + int(time[1]) / 1e6
