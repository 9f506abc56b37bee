"""A network between real counters and a real Valkey, whose packets and clock the test moves."""

import asyncio
import contextlib
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError

from counter.opening import Opened
from tests.support.nodes import Node
from tests.support.waiting import wait_until


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never waits: its clock goes on as the test says."""

    def __init__(self) -> None:
        self._now = self._end = 1000.0
        self.errors: list[dict[str, Any]] = []
        """What callbacks raised."""
        selector = selectors.SelectSelector()
        selector.select = self._select  # type: ignore[method-assign]
        super().__init__(selector)
        self.set_exception_handler(lambda _, error: self.errors.append(error))

    def time(self) -> float:
        return self._now

    def go_on(self, seconds: float = 0.0) -> None:
        """Run what is to be run, up to so much later."""
        self._end = self._now + seconds
        self.run_forever()

    def do(self, call: Callable[..., object], *args: object) -> None:
        """Call within the loop, and run what follows at once."""
        self.call_soon(call, *args)
        self.go_on()

    def _select(self, timeout: float | None = None) -> list[Any]:
        """Look at no socket; where the loop would wait for one, let the clock go on, or stop."""
        if timeout is not None and self._now + timeout <= self._end:
            self._now += max(timeout, 0)
        else:
            self._now = self._end
            self.stop()
        return []

    def end(self) -> None:
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.go_on()
        self.close()


class Server(Node):
    """A Valkey, and a socket of the test's to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--appendonly", "yes", "--appendfsync", "always")
        self.settings |= {"unixsocket": str(self.path)}
        self.settings |= {"auto-aof-rewrite-min-size": "4mb"}  # loading it takes time
        self.start()

    def _run(self, *words: str) -> None:
        super()._run(*words)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(self.path))

    def run(self, command: bytes) -> bytes:
        """Run a command whose reply is one line."""
        self._socket.sendall(command)
        read = b""
        while not read.endswith(b"\r\n"):
            more = self._socket.recv(65536)
            assert more, "Valkey closed the connection"
            read += more
        return read

    def kill(self) -> None:
        super().kill()
        self._socket.close()


class Pair:
    """A primary and its replica, which may change places."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.replica = Server(folder), Server(folder)
        self.replica.follow(self.primary)

    def wipe(self) -> None:
        """Leave nothing of what was before, so that the same choices do the same again."""
        self.primary.run(b"FLUSHALL SYNC\r\n")
        for server in self.primary, self.replica:
            server.run(b"SCRIPT FLUSH SYNC\r\n")

    def restart(self) -> None:
        self.primary.kill()
        self.primary.start()
        self.replica.client.replicaof("NO", "ONE")  # else it waits up to a second
        self.replica.follow(self.primary)

    def fail_over(self) -> None:
        """Make a primary of the replica, once it has all that the primary has."""
        wait_until(self.is_in_step)
        self.replica.client.replicaof("NO", "ONE")
        self.primary, self.replica = self.replica, self.primary
        self.replica.follow(self.primary)

    def is_in_step(self) -> bool:
        ours = self.primary.client.info("replication")["master_repl_offset"]
        theirs = self.replica.client.info("replication")
        return theirs["master_link_status"] == "up" and theirs["slave_repl_offset"] == ours


class Line:
    """A connection: redis-py's client, and the transport that a counter writes to.

    :arg owner: the way of the counter that has made it.
    """

    connection = None

    def __init__(self, network: "Network", owner: "Connector") -> None:
        self.network, self.owner, self.server = network, owner, network.servers.primary
        self.protocol: asyncio.Protocol | None = None
        self.transport = self
        self.is_open = True
        network.lines.append(self)

    def write(self, data: bytes) -> None:
        if self.is_open:
            self.network.take(Packet(data, self))

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.network.lines.remove(self)

    async def aclose(self, close_connection_pool: bool) -> None:
        self.close()

    def cut(self) -> None:
        """End it from without; what it was given may still arrive."""
        if self.is_open:
            self.close()
            if self.protocol is not None:
                self.protocol.connection_lost(ConnectionResetError("cut"))

    def give(self, reply: bytes) -> None:
        if self.is_open and self.protocol is not None:
            self.protocol.data_received(reply)


class Packet(NamedTuple):
    data: bytes
    line: Line


def take_over(line: Line, protocol: asyncio.Protocol) -> Line:
    """Stand in for that of `counter.redis_internals`."""
    if not line.is_open:
        raise ConnectionError("Redis closed the connection")
    line.protocol = protocol
    return line


class Network:
    """Keeps each packet and each reply until the test delivers it, if it does."""

    def __init__(self, loop: VirtualLoop, servers: Pair) -> None:
        self._loop, self.servers = loop, servers
        self.lines: list[Line] = []
        self.packets: list[Packet] = []  # that have not arrived
        self.sent: list[Packet] = []  # all of them, to be duplicated
        self.replies: list[tuple[Line, bytes]] = []  # that have not arrived
        self.connecting = "works"  # or is refused, hangs, is cut
        self.scripts_refused = False
        self.at_most_once: set[int] = set()  # numbers that plain commands took
        self._is_flowing = False

    def take(self, packet: Packet) -> None:
        self.packets.append(packet)
        self.sent.append(packet)
        if self._is_flowing:
            self._loop.call_soon(self._deliver, packet)

    def run(self, packet: Packet, acknowledged: int = 1) -> bytes:
        """Run a copy of a packet; one of a connection that is no more comes to the primary.

        :arg acknowledged: what WAIT answers, if the packet ends with it.
        """
        server = packet.line.server if packet.line.is_open else self.servers.primary
        if server is not self.servers.primary:
            # What it answers is not to depend on how fast it is.
            wait_until(self.servers.is_in_step)
        command, wait, _ = packet.data.partition(b"*3\r\n$4\r\nWAIT\r\n")
        if self.scripts_refused and b"EVAL" in command[:20]:
            return b"-NOPERM no permission\r\n" + (b":0\r\n" if wait else b"")
        reply = server.run(command)
        words = command.split(b"\r\n")
        if words[2] in (b"INCR", b"INCRBY") and reply.startswith(b":"):
            last, visits = int(reply[1:]), 1 if words[2] == b"INCR" else int(words[6])
            self.at_most_once.update(range(last - visits + 1, last + 1))
        return reply + (b":%d\r\n" % acknowledged if wait else b"")

    def _deliver(self, packet: Packet) -> None:
        if packet in self.packets:
            self.packets.remove(packet)
            packet.line.give(self.run(packet))

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Deliver at once what is sent meanwhile, on connections that work."""
        self._is_flowing, self.connecting = True, "works"
        yield
        self._is_flowing = False

    def deliver_all(self) -> None:
        """Let all packets and replies that anyone still waits for arrive."""
        for line, reply in self.replies:
            line.give(reply)
        self.replies.clear()
        for packet in [one for one in self.packets if one.line.is_open]:
            self._deliver(packet)


class Connector:
    """The way of one counter through the network."""

    in_cluster = False

    def __init__(self, network: Network) -> None:
        self._network = network

    async def connect(self) -> Opened:
        await asyncio.sleep(0)
        while self._network.connecting == "hangs":  # noqa: ASYNC110, looking again takes no time
            await asyncio.sleep(0.1)
        if self._network.connecting == "is cut":
            raise ConnectionError("cut")
        if self._network.connecting == "is refused":
            try:
                raise ConnectionRefusedError
            except OSError as error:
                raise ConnectionError("refused") from error
        return Opened(Line(self._network, self))  # type: ignore[arg-type]

    try_once = connect

    def reason(self, error: Exception) -> str:
        return str(error)

    async def has_moved(self) -> bool:
        primary, lines = self._network.servers.primary, self._network.lines
        return any(one.owner is self and one.server is not primary for one in lines)
