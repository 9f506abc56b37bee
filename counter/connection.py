"""A connection to Redis that sends one request at a time. Each reply is one line."""

import asyncio
import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ConnectionError, RedisError, ResponseError

from counter.redis_internals import take_over

#: A command's words.
Command = tuple[str | int, ...]

#: Gets the replies, or the error that came in place of a reply.
OnReplies = Callable[[list[bytes] | Exception], None]

#: Goes before each command to a node that is taking a slot over from another node
#: (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#ask-redirection).
ASKING = b"*1\r\n$6\r\nASKING\r\n"

_INTEGER = re.compile(rb":([+-]?[0-9]{1,19})")

#: Redis refuses to raise an integer past 64 bits (https://redis.io/commands/incrby).
MAX_NUMBER = 2**63 - 1

#: The most bytes that a reply may have before its line ends. Redis's errors are far shorter.
MAX_REPLY = 64 * 1024


class CutError(ConnectionError):
    """The connection ended before all replies came, so nobody knows what Redis has done."""


class Request(NamedTuple):
    """What the server sends in one packet: a command that counts, and what goes with it."""

    command: bytes
    """The command that counts."""
    arguments: bytes = b""
    """The last words of the command that counts."""
    in_full: bytes = b""
    """The command with the whole script, for a Redis that does not know the script's digest."""
    beside: Sequence[bytes] = ()
    """Commands after it. Redis may refuse one without harm. Nobody gets their replies."""
    wait: bytes = b""
    """The WAIT command, the last one sent; empty when no replica must acknowledge."""
    visits: int = 0
    """How many numbers the request asks for."""
    sequence: int = 0
    """The number of its token; 0 without a token. Then the request must be sent only once."""


class RedisConnection(asyncio.Protocol):
    """Takes over the connection of a redis-py client.

    redis-py opens the connection (TLS, AUTH, SELECT). It would lead each command through streams,
    locks, retries and hooks that are of no use here.

    :arg redis: a client that is connected and idle. The caller must not use it any more.
    :arg asking: whether each command must follow ``ASKING``: the slot is moving to the node.
    :raises ConnectionError: when Redis has sent something unasked, or has closed the connection.
    """

    def __init__(self, redis: Redis, asking: bool = False) -> None:
        self.is_sound = True
        """Whether every command has had its reply, and nothing else has come."""
        self.is_asking = asking
        """Whether each command follows ``ASKING``."""
        self._writer = take_over(redis, self)  # without it the transport would be closed
        self._transport = self._writer.transport
        self._input = b""
        self._request = Request(b"")
        self._replies: list[bytes] = []
        self._position = 0  # of the next reply; the command that counts has its reply at 0
        self._end = 0
        self._in_full = b""  # what to send if Redis does not know the script
        self._is_unknown = False  # Redis has said that it does not know the script
        self._error: RedisError | None = None  # the error that ends the request
        self._on_replies: OnReplies | None = None
        self.refused = ""
        """The last command that Redis refused beside the one that counts, and the error."""

    def send(self, request: Request, on_replies: OnReplies) -> None:
        """Send a request, once.

        :arg on_replies: is called once, with the reply of the command that counts, and with the
            reply of WAIT if the request has one. After ``close()`` it is not called.
        """
        self._request, self._on_replies = request, on_replies
        if self.is_asking:  # each command beside would need an ASKING of its own
            self._request = request._replace(beside=())
        self._in_full = request.in_full
        self._write(request.command)

    def _write(self, command: bytes) -> None:
        _, arguments, _, beside, wait, _, _ = self._request
        if self.is_asking:
            command = ASKING + command
        self._replies, self._is_unknown, self._error = [], False, None
        self._position, self._end = -1 if self.is_asking else 0, 1 + len(beside) + bool(wait)
        self._transport.write(b"".join((command, arguments, *beside, wait)))

    async def ask(self, request: Request) -> list[bytes]:
        """Send a request, and return the replies.

        :raises RedisError: when a reply is an error, or the connection is lost.
        """
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

        def on_replies(replies: list[bytes] | Exception) -> None:
            if answer.done():  # the caller has given up
                return
            if isinstance(replies, Exception):
                answer.set_exception(replies)
            else:
                answer.set_result(replies)

        self.send(request, on_replies)
        return await answer

    def close(self) -> None:
        """Close the connection. From now on, ignore replies."""
        self.is_sound, self._on_replies = False, None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Read replies (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
        self._input += data
        while self._on_replies is not None and (end := self._input.find(b"\r\n")) >= 0:
            line, self._input = self._input[:end], self._input[end + 2 :]
            self._error = self._take(line) or self._error
            if self._error is not None and not self._is_beside:  # first read the replies beside
                self._give(self._error)
            elif self._position == self._end and self._is_unknown:
                in_full, self._in_full = self._in_full, b""
                self._request = self._request._replace(beside=())  # Redis has run them
                self._write(in_full)
            elif self._position == self._end:
                self._give(self._replies)
        if self._on_replies is None:
            self.is_sound = self.is_sound and not self._input
        elif len(self._input) > MAX_REPLY:
            self._give(ValueError("Redis sent a reply without an end"))

    @property
    def _is_beside(self) -> bool:
        return 0 < self._position <= len(self._request.beside)

    def _take(self, line: bytes) -> RedisError | None:
        """Keep a reply. Return the reply if it is an error that ends the request."""
        position, self._position = self._position, self._position + 1
        if 0 < position <= len(self._request.beside):
            if line[:1] == b"-":
                command = self._request.beside[position - 1].split(b"\r\n", 3)[2]
                self.refused = f"{command.decode()}: {_text(line)}"
            return None
        if line[:1] == b"-":
            error = _text(line)
            if position > 0:  # Redis has counted, so this is no refusal of the command that counts
                return RedisError(f"WAIT: {error}")
            if position or not self._in_full or not error.startswith("NOSCRIPT"):
                return ResponseError(error)
            self._is_unknown = True
        elif position >= 0:
            self._replies.append(line)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the caller of `send`, if it waits for a reply."""
        self.is_sound = False
        self._give(CutError(str(exc) if exc else "Redis closed the connection"))

    def _give(self, replies: list[bytes] | Exception) -> None:
        on_replies, self._on_replies = self._on_replies, None
        # Bytes after the replies would seem to be replies to the next request.
        if self._input or self._position < self._end:
            self.is_sound = False
        if on_replies is not None:
            on_replies(replies)


def _text(line: bytes) -> str:
    """Return the text of an error."""
    return line[1:].decode(errors="replace").removeprefix("ERR ")


def integer(line: bytes) -> int:
    """Return the integer that a reply holds.

    :raises ValueError: when the reply is no integer.
    """
    if match := _INTEGER.fullmatch(line):
        return within_64_bits(int(match[1]))
    raise unexpected(line)


def within_64_bits(number: int) -> int:
    """Return the number, if Redis can hold it.

    :raises ValueError: when Redis cannot hold it.
    """
    if not -MAX_NUMBER <= number <= MAX_NUMBER:
        raise ValueError(f"Redis answered with {number}, which has more than 64 bits")
    return number


def unexpected(line: bytes) -> ValueError:
    """Return the error to raise for a reply that does not answer the command."""
    return ValueError(f"Redis answered with {line[:100].decode(errors='replace')!r}")


@functools.lru_cache(maxsize=1024)
def packed(*command: str | int) -> bytes:
    """Return the bytes of a command. Bytes that are no UTF-8 (PEP 383) stay as they were."""
    words = [str(word).encode(errors="surrogateescape") for word in command]
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def bulk(word: bytes) -> bytes:
    """Return the bytes of one word of a command."""
    return b"$%d\r\n%b\r\n" % (len(word), word)
