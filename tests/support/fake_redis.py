"""A Redis that counts, records what it is sent, and misbehaves on demand."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.streams import Service


@dataclass
class Connection:
    """One that a client made, and whether the client has closed it."""

    number: int
    writer: asyncio.StreamWriter
    closed: bool = False
    beside: int = 0
    """Commands that came after one that counts, whose replies go with its own."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Command(NamedTuple):
    """What was received, on which connection."""

    connection: Connection
    words: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether it is one that counts, though it may add nothing."""
        return self.words[0] in COUNTING

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
    def is_giving_back(self) -> bool:
        """Whether it is a token that returns numbers which nobody was shown."""
        return len(self.sent) > 6

    @property
    def token(self) -> tuple[str, ...]:
        """The process, and the sequence number; nothing without a token."""
        return tuple(self.sent[:2])


COUNTING = ("EVALSHA", "EVAL", "INCR", "INCRBY")

#: What a process's figures are written with, beside plain commands; or by a script.
FIGURES = ("HSET", "HSETNX", "EXPIRE", "ZADD", "ZREMRANGEBYSCORE")

#: How what counts is answered, with the figures beside; it is given the sound replies.
Answer = Callable[[Connection, bytes], Awaitable[None]]


def reply(raw: bytes) -> Answer:
    """Answer with these bytes, and the figures as they are answered soundly."""

    async def answer(connection: Connection, sound: bytes) -> None:
        connection.writer.write(raw + sound.partition(b"\r\n")[2])

    return answer


def only(raw: bytes) -> Answer:
    """Answer all of it with these bytes."""

    async def answer(connection: Connection, sound: bytes) -> None:
        connection.writer.write(raw)

    return answer


async def never(connection: Connection, sound: bytes) -> None:
    """Do not answer."""


async def half(connection: Connection, sound: bytes) -> None:
    connection.writer.write(sound[:-2])
    connection.writer.close()


async def hang_up(connection: Connection, sound: bytes) -> None:
    connection.writer.close()


def late(seconds: float) -> Answer:
    async def answer(connection: Connection, sound: bytes) -> None:
        await asyncio.sleep(seconds)
        connection.writer.write(sound)

    return answer


def drip(seconds: float) -> Answer:
    async def answer(connection: Connection, sound: bytes) -> None:
        for byte in sound:
            connection.writer.write(bytes([byte]))
            await asyncio.sleep(seconds)

    return answer


class FakeRedis(Service):
    """Speaks RESP2 on a port of its own, in a thread of its own; use it as a context.

    It applies tokens as the script does, but for numbers that were shown to nobody; with
    ``scripts_refused`` it answers them with that instead, and plain commands count.

    ``answer`` replaces the reply to what counts, if by nothing, and to the figures beside plain
    commands, each of which has ``figure`` as its own; ``figures`` are not in ``commands``;
    ``replies`` has those of commands that this Redis does not know, by their first words;
    ``silent`` answers no command at all; ``hanging_up`` closes every connection at once, and says
    ``parting`` first.
    """

    def __init__(self, password: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.password = password
        self.counter = 0
        self.scripts_refused = b""
        self.replies: dict[str, bytes] = {}
        self._tokens: dict[str, tuple[int, int, int]] = {}  # the last one of each process
        self.commands: list[Command] = []
        self.figures: list[Command] = []
        self.connections: list[Connection] = []
        self._gate: asyncio.Event | None = None
        self._healed = asyncio.Event()
        self.heal()

    def heal(self) -> None:
        """Behave; a port that was closed stays so."""
        self.answer: Answer | None = None
        self.figure = b":1\r\n"
        self.silent = False
        self.hanging_up, self.parting = False, b""
        healed, self._healed = self._healed, asyncio.Event()
        self.loop.call_soon_threadsafe(healed.set)

    def answer_when_healed(self) -> None:
        """Let replies come too late: they are sent once this Redis behaves again."""
        healed = self._healed

        async def answer(connection: Connection, sound: bytes) -> None:
            await healed.wait()
            connection.writer.write(sound)

        self.answer = answer

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
    def held(self) -> Iterator[None]:
        self._gate = asyncio.Event()
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Send the replies that were held back, and hold back no more."""
        gate, self._gate = self._gate, None
        if gate is not None:
            self.loop.call_soon_threadsafe(gate.set)

    # In its thread.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(len(self.connections), writer)
        self.connections.append(connection)
        if self.hanging_up:
            writer.write(self.parting)
            writer.close()
        try:
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(length + 2))[:-2].decode())
                command = Command(connection, tuple(words))
                if (
                    words[0] in FIGURES or "{counter}:processes" in words[:5]
                ):  # in the same packet, so before the task below runs
                    self.figures.append(command)
                    connection.beside += 1
                    continue
                # As the test has it now: once it sees the command, it may change its mind.
                how = self._gate, self.answer, self.silent
                self.commands.append(command)
                # Beside the reading, so that the client's closing is seen meanwhile.
                task = asyncio.create_task(self._answer(command, *how))
                connection.tasks.add(task)
                task.add_done_callback(connection.tasks.discard)
        except ValueError:
            pass  # no RESP
        finally:
            connection.closed = True

    async def _answer(
        self, command: Command, gate: asyncio.Event | None, answer: Answer | None, silent: bool
    ) -> None:
        sound = self._sound_reply(command)
        if gate is not None:
            await gate.wait()
        if silent:
            return
        with contextlib.suppress(OSError):
            if answer is not None and command.counts:
                await answer(command.connection, sound)
            else:
                command.connection.writer.write(sound)

    def _sound_reply(self, command: Command) -> bytes:
        if command.words[0] in self.replies:
            return self.replies[command.words[0]]
        match command.words:
            case ("INCR", _) | ("INCRBY", _, _):
                self.counter += command.visits
                return b":%d\r\n" % self.counter + self._beside(command.connection)
            case ("EVALSHA" | "EVAL", *_):
                own = self.scripts_refused or self._applied(*command.sent[:3])
                return own + self._beside(command.connection)
            case ("AUTH", *credentials):
                right = credentials[-1] == self.password
                return b"+OK\r\n" if right else b"-WRONGPASS invalid password\r\n"
            case ("SELECT", _):
                return b"+OK\r\n"
            case ("WAIT", _, _):
                return b":0\r\n"
            case ("PING",):
                return b"+PONG\r\n"
        return b"-ERR unknown command\r\n"

    def _beside(self, connection: Connection) -> bytes:
        beside, connection.beside = connection.beside, 0
        return self.figure * beside

    def _applied(self, process: str, *token: str) -> bytes:
        sequence, visits = map(int, token)
        if sequence > self._tokens.get(process, (0,))[0]:
            self.counter += visits
            self._tokens[process] = (sequence, self.counter, visits)
            return b":%d\r\n" % self.counter
        return b"+%d %d %d\r\n" % self._tokens[process]
