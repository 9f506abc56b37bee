"""A connection to Redis for commands with integer replies, one batch after the other."""

import asyncio
import functools
import re
from collections.abc import Callable, Sequence

from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError

from counter.redis_internals import take_over

#: A command's words.
Command = tuple[str | int, ...]

#: Is given the replies, or what came instead of one.
OnReplies = Callable[[list[int] | Exception], None]

_INTEGER = re.compile(rb":([+-]?[0-9]{1,19})")

#: Bytes of a reply that is not an end of a line yet. Redis's errors are far shorter.
MAX_REPLY = 64 * 1024


class Connection(asyncio.Protocol):
    """Takes over the connection of a redis-py client.

    redis-py leads a command through streams, locks, retries and hooks that are of no use here:
    a third of what a page costs that is alone. It opens the connection (TLS, AUTH, SELECT).

    :arg redis: connected, and idle; it is not to be used any more.
    :raises ConnectionError: when Redis has sent what it was not asked for, or has gone.
    """

    def __init__(self, redis: Redis) -> None:
        self.is_sound = True
        """Whether every command has had its reply, and nothing else has come."""
        self.refused: ResponseError | None = None
        """Why Redis last refused a command that was sent alongside others."""
        self._writer = take_over(redis, self)  # kept, as the transport ends with it
        self._transport = self._writer.transport
        self._input = b""
        self._replies: list[int] = []
        self._expected = 0
        self._alongside = 0  # replies that are still to come after the first, and are not given
        self._on_replies: OnReplies | None = None

    def send(
        self, commands: Sequence[Command], on_replies: OnReplies, alongside: Sequence[Command] = ()
    ) -> None:
        """Send commands, once.

        :arg on_replies: is called once; not at all after ``close()``.
        :arg alongside: sent after the first. Redis may refuse one without harm to the others, and
            the replies are not given.
        """
        self._replies, self._expected, self._on_replies = [], len(commands), on_replies
        self._alongside = len(alongside)
        in_order = (*commands[:1], *alongside, *commands[1:])
        self._transport.write(b"".join([_packed(*command) for command in in_order]))

    async def ask(self, commands: Sequence[Command]) -> list[int]:
        """Send commands, and return their replies.

        :raises RedisError: when one is an error, or the connection is lost.
        :raises ValueError: when one is no integer.
        """
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def on_replies(replies: list[int] | Exception) -> None:
            if answer.done():  # whoever asked has given up
                return
            if isinstance(replies, Exception):
                answer.set_exception(replies)
            else:
                answer.set_result(replies)

        self.send(commands, on_replies)
        return await answer

    def close(self) -> None:
        """Close the connection; what has come of a reply is for nobody."""
        self.is_sound, self._on_replies = False, None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Read replies (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
        self._input += data
        while self._on_replies is not None and (end := self._input.find(b"\r\n")) >= 0:
            line, self._input = self._input[:end], self._input[end + 2 :]
            try:
                self._take(line)
            except (ResponseError, ValueError) as error:
                self._give(error)
            if len(self._replies) == self._expected and not self._alongside:
                self._give(self._replies)
        if self._on_replies is None:
            self.is_sound = self.is_sound and not self._input
        elif len(self._input) > MAX_REPLY:
            self._give(ConnectionError("Redis sent a reply without an end"))

    def _take(self, line: bytes) -> None:
        if not self._replies or not self._alongside:
            self._replies.append(_integer(line))
            return
        self._alongside -= 1
        try:
            _integer(line)
        except ResponseError as error:
            self.refused = error

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for a reply."""
        self.is_sound = False
        self._give(ConnectionError(str(exc) if exc else "Redis closed the connection"))

    def _give(self, replies: list[int] | Exception) -> None:
        on_replies, self._on_replies = self._on_replies, None
        # What follows the replies answers nothing; before it is taken for the next one's reply:
        if self._input or isinstance(replies, Exception):
            self.is_sound = False
        if on_replies is not None:
            on_replies(replies)


def _integer(line: bytes) -> int:
    if match := _INTEGER.fullmatch(line):
        return int(match[1])
    text = line.decode(errors="replace")
    if text.startswith("-"):
        raise ResponseError(text[1:].removeprefix("ERR "))
    raise ValueError(f"Redis answered with {text[:100]!r}, not with an integer")


@functools.lru_cache(maxsize=1024)
def _packed(*command: str | int) -> bytes:
    words = [str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)
