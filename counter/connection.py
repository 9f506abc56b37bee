"""A connection to Redis for requests whose replies are one line each, one after the other."""

import asyncio
import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError

from counter.redis_internals import take_over

#: A command's words.
Command = tuple[str | int, ...]

#: Is given the replies, or what came instead of one.
OnReplies = Callable[[list[bytes] | Exception], None]

#: Goes before each command that follows a slot on its move
#: (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#ask-redirection).
ASKING = b"*1\r\n$6\r\nASKING\r\n"

_INTEGER = re.compile(rb":([+-]?[0-9]{1,19})")

#: Redis refuses to raise an integer past 64 bits (https://redis.io/commands/incrby).
MAX_NUMBER = 2**63 - 1

#: Bytes of a reply that is not an end of a line yet. Redis's errors are far shorter.
MAX_REPLY = 64 * 1024


class CutError(ConnectionError):
    """The connection ended before every reply had come; nobody knows what Redis has done."""


class Request(NamedTuple):
    """What is sent in one packet: a command that counts, and what goes with it."""

    command: bytes
    """The command that counts."""
    arguments: bytes = b""
    """Its last words."""
    in_full: bytes = b""
    """What stands for the command when Redis does not know the script that it names."""
    beside: Sequence[bytes] = ()
    """Commands after it. Redis may refuse one without harm, and their replies are not given."""
    wait: bytes = b""
    """What is sent last, if anything."""
    visits: int = 0
    """How many numbers it asks for."""
    sequence: int = 0
    """That of its token; without a token it must not be sent again."""


class RedisConnection(asyncio.Protocol):
    """Takes over the connection of a redis-py client.

    redis-py leads a command through streams, locks, retries and hooks that are of no use here:
    a third of what a page costs that is alone. It opens the connection (TLS, AUTH, SELECT).

    :arg redis: connected, and idle; it is not to be used any more.
    :arg asking: whether the node serves the slot only to those who were sent to it.
    :raises ConnectionError: when Redis has sent what it was not asked for, or has gone.
    """

    def __init__(self, redis: Redis, asking: bool = False) -> None:
        self.is_sound = True
        """Whether every command has had its reply, and nothing else has come."""
        self._asking = asking
        self._writer = take_over(redis, self)  # kept, as the transport ends with it
        self._transport = self._writer.transport
        self._input = b""
        self._request = Request(b"")
        self._replies: list[bytes] = []
        self._position = 0  # of the next reply; the one of the command that counts is at 0
        self._end = 0
        self._in_full = b""  # what to send if Redis does not know the script
        self._is_unknown = False  # Redis has said so
        self._error: ResponseError | None = None  # which ends the request
        self._on_replies: OnReplies | None = None
        self.refused = ""
        """What Redis has last refused of the commands beside the one that counts."""

    def send(self, request: Request, on_replies: OnReplies) -> None:
        """Send a request, once.

        :arg on_replies: is called once, with the first command's reply, and with the last one's
            if there is one; not at all after ``close()``.
        """
        self._request, self._on_replies = request, on_replies
        if self._asking:  # those beside would have to ask as well, each for itself
            self._request = request._replace(beside=())
        self._in_full = request.in_full
        self._write(request.command)

    def _write(self, command: bytes) -> None:
        _, arguments, _, beside, wait, _, _ = self._request
        if self._asking:
            command = ASKING + command
        self._replies, self._is_unknown, self._error = [], False, None
        self._position, self._end = -1 if self._asking else 0, 1 + len(beside) + bool(wait)
        self._transport.write(b"".join((command, arguments, *beside, wait)))

    async def ask(self, request: Request) -> list[bytes]:
        """Send a request, and return the replies.

        :raises RedisError: when one is an error, or the connection is lost.
        """
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

        def on_replies(replies: list[bytes] | Exception) -> None:
            if answer.done():  # whoever asked has given up
                return
            if isinstance(replies, Exception):
                answer.set_exception(replies)
            else:
                answer.set_result(replies)

        self.send(request, on_replies)
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
            self._error = self._take(line) or self._error
            if self._error is not None and not self._is_beside:  # those beside come all the same
                self._give(self._error)
            elif self._position == self._end and self._is_unknown:
                in_full, self._in_full = self._in_full, b""
                self._request = self._request._replace(beside=())  # they were run
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

    def _take(self, line: bytes) -> ResponseError | None:
        """Keep a reply; return it when it is an error that ends the request."""
        position, self._position = self._position, self._position + 1
        if 0 < position <= len(self._request.beside):
            if line[:1] == b"-":
                command = self._request.beside[position - 1].split(b"\r\n", 3)[2]
                self.refused = f"{command.decode()}: {_text(line)}"
            return None
        if line[:1] == b"-":
            error = _text(line)
            if position or not self._in_full or not error.startswith("NOSCRIPT"):
                return ResponseError(error)
            self._is_unknown = True
        elif position >= 0:
            self._replies.append(line)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for a reply."""
        self.is_sound = False
        self._give(CutError(str(exc) if exc else "Redis closed the connection"))

    def _give(self, replies: list[bytes] | Exception) -> None:
        on_replies, self._on_replies = self._on_replies, None
        # What follows the replies answers nothing; before it is taken for the next one's reply:
        if self._input or self._position < self._end:
            self.is_sound = False
        if on_replies is not None:
            on_replies(replies)


def _text(line: bytes) -> str:
    """Return what an error says."""
    return line[1:].decode(errors="replace").removeprefix("ERR ")


def integer(line: bytes) -> int:
    """Return the integer that a reply is.

    :raises ValueError: when it is none.
    """
    if match := _INTEGER.fullmatch(line):
        return within_64_bits(int(match[1]))
    raise unexpected(line)


def within_64_bits(number: int) -> int:
    """Return an integer that Redis can hold.

    :raises ValueError: for any other.
    """
    if not -MAX_NUMBER <= number <= MAX_NUMBER:
        raise ValueError(f"Redis answered with {number}, which has more than 64 bits")
    return number


def unexpected(line: bytes) -> ValueError:
    """Return what to raise for a reply that is none to the command."""
    return ValueError(f"Redis answered with {line[:100].decode(errors='replace')!r}")


@functools.lru_cache(maxsize=1024)
def packed(*command: str | int) -> bytes:
    """Return a command as it is sent; bytes that are no UTF-8 (PEP 383) as they were."""
    words = [str(word).encode(errors="surrogateescape") for word in command]
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def bulk(word: bytes) -> bytes:
    """Return a word of a command as it is sent."""
    return b"$%d\r\n%b\r\n" % (len(word), word)
