"""A Redis that counts, records what it is sent, and misbehaves on demand."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.support.streams import Service


@dataclass(eq=False)
class Connection:
    """One that a client made, and whether the client has closed it."""

    writer: asyncio.StreamWriter
    closed: bool = False


class Command(NamedTuple):
    """What was received, on which connection."""

    connection: Connection
    words: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether it is one that counts, though it may add nothing."""
        return self.words[0] in ("EVALSHA", "EVAL", "INCR", "INCRBY")

    @property
    def sent(self) -> list[str]:
        """The process, and what its token says; nothing without a token."""
        if self.words[0] not in ("EVALSHA", "EVAL"):
            return []
        return [self.words[4], *self.words[3 + int(self.words[2])].split()]

    @property
    def visits(self) -> int:
        plain = {"INCR": 1, "INCRBY": int(self.words[-1]) if self.words[0] == "INCRBY" else 0}
        return int(self.sent[2]) if self.sent else plain.get(self.words[0], 0)

    @property
    def token(self) -> tuple[str, ...]:
        """The process, and the sequence number; nothing without a token."""
        return tuple(self.sent[:2])


#: How what counts is answered; it is given the sound reply.
Answer = Callable[[asyncio.StreamWriter, bytes], Coroutine[Any, Any, None]]


async def soundly(writer: asyncio.StreamWriter, sound: bytes) -> None:
    writer.write(sound)


async def half(writer: asyncio.StreamWriter, sound: bytes) -> None:
    """Send a part of the reply, and hang up."""
    writer.write(sound[:-2])
    writer.close()


def reply(raw: bytes) -> Answer:
    return lambda writer, sound: soundly(writer, raw)


def late(seconds: float) -> Answer:
    async def answer(writer: asyncio.StreamWriter, sound: bytes) -> None:
        await asyncio.sleep(seconds)
        writer.write(sound)

    return answer


class FakeRedis(Service):
    """Speaks RESP2 on a port of its own, in a thread of its own; use it as a context.

    It applies tokens as the script does, but for numbers that were shown to nobody; with
    ``scripts_refused`` it answers them with that instead, and plain commands count.

    ``answer`` says how what counts is answered; ``replies`` has those of other commands, by their
    first words; ``silent`` answers no command at all; ``hanging_up`` closes every connection at
    once, and says ``parting`` first.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.counter = 0
        self.scripts_refused = b""
        self.replies: dict[str, bytes] = {}
        self._tokens: dict[str, tuple[int, int, int]] = {}  # the last one of each process
        self.commands: list[Command] = []
        self.connections: list[Connection] = []
        self._answering: set[asyncio.Task[None]] = set()
        self.heal()

    def heal(self) -> None:
        """Behave; a port that was closed stays so."""
        self.answer: Answer = soundly
        self.silent = False
        self.hanging_up, self.parting = False, b""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def visits(self) -> list[Command]:
        """Return the commands that are for visits, those that were sent again left out."""
        found = [command for command in self.commands if command.visits]
        tokens = [command.token for command in found]
        return [one for i, one in enumerate(found) if not one.token or one.token not in tokens[:i]]

    def open(self) -> list[Connection]:
        return [connection for connection in self.connections if not connection.closed]

    # What a test does to it, from its own thread.

    def send(self, raw: bytes) -> None:
        for connection in self.open():
            self._call(connection.writer.write, raw)

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold back replies, until the end of the context, or until what it gives is called."""
        gate, answer = asyncio.Event(), self.answer

        async def hold(writer: asyncio.StreamWriter, sound: bytes) -> None:
            await gate.wait()
            await answer(writer, sound)

        def let_go() -> None:
            self.answer = answer
            self._call(gate.set)

        self.answer = hold
        try:
            yield let_go
        finally:
            let_go()

    # In its thread.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer)
        self.connections.append(connection)
        if self.hanging_up:
            writer.write(self.parting)
            writer.close()
        try:
            while True:
                words = []
                for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(length + 2))[:-2].decode())
                command = Command(connection, tuple(words))
                # As the test has it now: once it sees the command, it may change its mind.
                answer = self.answer if command.counts else soundly
                sound = b"" if self.silent else self._reply_to(command)
                self.commands.append(command)
                # Beside the reading, so that the client's closing is seen meanwhile.
                task = asyncio.create_task(answer(writer, sound))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
        except ValueError:
            pass  # no RESP
        finally:
            connection.closed = True

    def _reply_to(self, command: Command) -> bytes:
        match command.words:
            case (name, *_) if name in self.replies:
                return self.replies[name]
            case ("INCR", _) | ("INCRBY", _, _):
                self.counter += command.visits
                return b":%d\r\n" % self.counter
            case ("EVALSHA" | "EVAL", *_):
                return self.scripts_refused or self._applied(*command.sent[:3])
            case ("SELECT", _):
                return b"+OK\r\n"
            case ("PING",):
                return b"+PONG\r\n"
        return b"-ERR unknown command\r\n"

    def _applied(self, process: str, *token: str) -> bytes:
        sequence, visits = map(int, token)
        if sequence > self._tokens.get(process, (0,))[0]:
            self.counter += visits
            self._tokens[process] = (sequence, self.counter, visits)
            return b":%d\r\n" % self.counter
        return b"+%d %d %d\r\n" % self._tokens[process]
