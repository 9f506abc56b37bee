"""Accepting connections while there is room, and waiting for room when there is none."""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Protocol

from tornado.ioloop import IOLoop

#: What accept(2) fails with for lack of descriptors or memory.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Connections that are accepted of a socket before others have their turn.
MAX_AT_ONCE = 128

#: Bytes that the system keeps of what a client sends and nobody reads, so one read brings no more.
#: Linux doubles what it is told, for its own needs (socket(7)).
MAX_UNREAD = 16 * 1024

#: Seconds until it looks again for idle connections, and for descriptors that others have closed.
LOOK_AGAIN = 0.1

#: Seconds with room after which the lack of it is told anew.
SPELL = 60.0

log = logging.getLogger("http1")


class Connections(Protocol):
    """What accepted connections are given to."""

    @property
    def connections(self) -> int:
        """How many there are."""

    @property
    def is_full(self) -> bool:
        """Whether these are as many as there may be."""

    def handle_connection(self, connection: socket.socket, address: Any) -> None:
        """Take one."""

    def make_room(self) -> None:
        """Close some that are idle, as far as there are any."""


class Acceptor:
    """Accepts what waits on listening sockets, which the system keeps for it meanwhile.

    :arg connections: they are given to it. It calls `room_made` when one is closed.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._listening: set[socket.socket] = set()
        self._timer: object = None
        self._spell_ends = 0.0  # on the loop's clock
        self.is_waiting = False
        """Whether nothing is accepted, for lack of room."""

    def add(self, listening: socket.socket) -> Callable[[], None]:
        """Accept what comes on a socket, which does not block.

        :return: ends it.
        """
        loop = IOLoop.current()

        def on_ready(sock: socket.socket, events: int) -> None:
            if self._connections.is_full:
                self._wait_for_room()
            else:
                self.accept(sock, MAX_AT_ONCE)

        def remove() -> None:
            self._listening.discard(listening)
            loop.remove_handler(listening)

        # What is accepted has the same.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MAX_UNREAD // 2)
        self._listening.add(listening)
        loop.add_handler(listening, on_ready, 0 if self.is_waiting else IOLoop.READ)
        return remove

    def accept(self, listening: socket.socket, most: int) -> None:
        """Accept what waits on a socket now, as long as there is room.

        :arg most: connections.
        """
        for _ in range(most):
            try:
                connection, address = listening.accept()
            except BlockingIOError:  # no more
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._wait_for_room(f" ({error.strerror})")
                return
            self._connections.handle_connection(connection, address)
            if self._connections.is_full:
                return

    def _wait_for_room(self, why: str = "") -> None:
        loop = IOLoop.current()
        if loop.time() > self._spell_ends:
            log.warning(
                "no room beside %d connections%s: those idle longest are closed; "
                "when none is idle, new ones wait",
                self._connections.connections,
                why,
            )
        self._spell_ends = loop.time() + SPELL
        self._connections.make_room()
        self._listen(is_waiting=True)
        self._timer = self._timer or loop.call_later(LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if not self.is_waiting:
            return
        if self._connections.is_full:
            self._connections.make_room()  # some may have become idle
            self._timer = IOLoop.current().call_later(LOOK_AGAIN, self._look_again)
        else:
            self._listen(is_waiting=False)

    def room_made(self) -> None:
        """Accept again, now that a connection is closed, if it waits for that."""
        if self.is_waiting and not self._connections.is_full:
            self._listen(is_waiting=False)

    def _listen(self, is_waiting: bool) -> None:
        self.is_waiting = is_waiting
        for listening in self._listening:
            IOLoop.current().update_handler(listening, 0 if is_waiting else IOLoop.READ)
