"""A connection to Redis for reading and telling only, so that counting never waits for these."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import ConnectionError, ResponseError

from counter import Connector, is_refusal, packed, take_over

#: If Redis closes this many connections in a row instead of answering, this counts as a refusal.
HANG_UPS = 3

#: Seconds that a question to Redis may take, connecting included.
TIMEOUT = 2.0

#: The most bytes of a text that a reader keeps. It skips the rest, so that no key can fill the
#: memory.
MAX_TEXT = 16 * 1024

#: Values that a reader reads in one turn of the loop. This takes a third of a millisecond. Then the
#: loop serves pages.
VALUES_PER_TURN = 200

#: How a node of a cluster says that another node has some of the keys, or all
#: (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN")

_INTEGER = re.compile(rb"[:$*](-?[0-9]{1,19})")

Result = TypeVar("Result")


class RefusedError(ResponseError):
    """Redis refused a command. The message names the command, and says why."""


class ElsewhereError(ResponseError):
    """Another node of the cluster has some of the keys, or all."""


class Link:
    """Asks Redis. It opens a connection when it has none.

    :arg connector: the way to Redis. Nothing else may use it.
    """

    def __init__(self, connector: Connector) -> None:
        self.reason = connector.reason
        """Return why a question failed, without secrets."""
        self._connector = connector
        self._replies: _Replies | None = None
        self._hang_ups = 0  # in a row

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._replies is not None and not self._replies.is_lost

    async def within_time(self, talk: Callable[[], Awaitable[Result]]) -> Result:
        """Ask within `TIMEOUT`. If this fails, close the connection.

        :arg talk: asks by `ask`, and returns the result.
        :raises RefusedError: when Redis refuses a command.
        :raises ElsewhereError: while the counter's slot is being moved.
        :raises Exception: when there is no Redis, or it does not answer in time.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                if await self._connector.has_moved() or not self.is_open:
                    self.close()
                is_open = self.is_open
                try:
                    return await self._talk(talk)
                except ElsewhereError:
                    if not is_open:
                        raise
                self.close()  # the slot has moved since
                return await self._talk(talk)
        except RefusedError:  # every reply has come, so the connection stays
            raise
        except BaseException:
            self.close()  # a reply that nobody reads may still come
            raise

    async def _talk(self, talk: Callable[[], Awaitable[Result]]) -> Result:
        if self._replies is None:
            opened = await self._connector.connect()
            self._replies = _Replies()
            self._replies.writer = take_over(opened.redis, self._replies)
            if opened.asking:
                # Keys that have not moved yet would seem to be missing. A key that is written
                # there could not follow from the node that has it.
                raise ElsewhereError("the counter's slot is being moved")
        return await self._heeding_hang_ups(talk)

    async def _heeding_hang_ups(self, talk: Callable[[], Awaitable[Result]]) -> Result:
        """Ask, and count hang-ups: a proxy hangs up at each command that it does not know."""
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
        """Send commands in one packet, and return the replies. One may be a `RefusedError`.

        :raises ElsewhereError: when another node of the cluster has a key.
        :raises ResponseError: when Redis can run no such command now.
        """
        assert self._replies is not None
        self._replies.writer.transport.write(b"".join(commands))
        return [_named(await self._replies.read(), command) for command in commands]

    async def ask_at_once(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands as one transaction, if Redis allows it. Return replies as `ask` does."""
        *_, done = await self.ask([packed("MULTI"), *commands, packed("EXEC")])
        if not isinstance(done, list):  # Redis refuses MULTI, or one of them
            return await self.ask(commands)
        return [_named(reply, command) for command, reply in zip(commands, done, strict=True)]

    def close(self) -> None:
        """Close the connection. The next question opens another."""
        replies, self._replies = self._replies, None
        if replies is not None:
            replies.writer.transport.close()


class _Replies(asyncio.Protocol):
    """Reads replies (https://redis.io/docs/latest/develop/reference/protocol-spec/).

    redis-py reads even a very large reply in one turn, and would stop the loop for that time.
    """

    writer: asyncio.StreamWriter

    def __init__(self) -> None:
        self._input = b""
        self._at = 0  # the bytes before this have been read
        self._more = asyncio.Event()
        self.is_lost = False
        self._left = VALUES_PER_TURN

    def data_received(self, data: bytes) -> None:
        self._input, self._at = self._input[self._at :] + data, 0
        self._more.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._more.set()

    async def read(self) -> Any:
        """Return the next reply. It may be an error.

        :raises ConnectionError: when the connection ends before the reply does.
        :raises ValueError: when Redis sends something else than a reply.
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
        left = size + 2  # the line's end included
        while len(self._input) < self._at + left:
            left -= len(self._input) - self._at
            self._at = len(self._input)
            await self._wait_for_more()
        self._at += left
        return text

    async def _wait_for_more(self) -> None:
        if self.is_lost:
            raise ConnectionError("Redis closed the connection")
        self._more.clear()
        await self._more.wait()


def _named(reply: Any, command: bytes) -> Any:
    """Return a reply. If it is an error, name the command in it.

    :raises ResponseError: when the error is no refusal, but a state of Redis that will pass.
    """
    if not isinstance(reply, ResponseError):
        return reply
    word = command.split(b"\r\n", 3)[2].decode()
    text = f"{word}: {reply}"
    if not will_pass(reply):
        return RefusedError(text)
    raise (ElsewhereError if str(reply).startswith(ELSEWHERE) else ResponseError)(text)


def will_pass(error: ResponseError) -> bool:
    """Tell whether an error is no refusal, but a state of Redis or of a cluster that will pass."""
    return str(error).startswith(ELSEWHERE) or not is_refusal(error)


def seconds(time: Sequence[bytes]) -> float:
    """Return the time that Redis tells (https://redis.io/docs/latest/commands/time/).

    :return: seconds since 1970.
    """
    return int(time[0]) + int(time[1]) / 1e6
