"""Accepts connections while there is room, and waits when there is none."""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Protocol

from tornado.ioloop import IOLoop

#: The errors of accept(2) when descriptors or memory are used up.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Connections to accept from one socket before other work has its turn.
MAX_AT_ONCE = 128

#: Bytes from a client that the system keeps until the server reads them. One read returns no more.
#: Linux doubles the size that a program sets, for its own needs (socket(7)).
MAX_UNREAD = 16 * 1024

#: Seconds until the acceptor looks again for idle connections and for free descriptors.
LOOK_AGAIN = 0.1

#: Seconds with room after which the acceptor logs the next lack of room again.
QUIET = 60.0

log = logging.getLogger("http1")


class Connections(Protocol):
    """Takes the accepted connections."""

    @property
    def connections(self) -> int:
        """How many connections are open."""

    @property
    def is_full(self) -> bool:
        """Whether as many connections are open as allowed."""

    def handle_connection(self, connection: socket.socket, address: Any) -> None:
        """Take an accepted connection."""

    def make_room(self) -> None:
        """Close some idle connections, if there are any."""


class Acceptor:
    """Accepts connections from listening sockets; without room, they wait in the system's queue.

    :arg connections: takes each connection. It calls `room_made` when a connection is closed.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._listening: set[socket.socket] = set()
        self._timer: object = None  # while it waits for room
        self._quiet_until = 0.0  # on the loop's clock

    @property
    def is_waiting(self) -> bool:
        """Whether it accepts nothing because there is no room."""
        return self._timer is not None

    def add(self, listening: socket.socket) -> Callable[[], None]:
        """Accept connections from a listening socket.

        :arg listening: a socket that does not block.
        :return: a function that ends the accepting.
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

        # Accepted connections inherit the size.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MAX_UNREAD // 2)
        self._listening.add(listening)
        loop.add_handler(listening, on_ready, 0 if self.is_waiting else IOLoop.READ)
        return remove

    def accept(self, listening: socket.socket, most: int) -> None:
        """Accept the connections that wait on a socket now, as long as there is room.

        :arg most: how many connections to accept at most.
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
        if loop.time() > self._quiet_until:
            log.warning(
                "no room beside %d connections%s: those idle longest are closed; "
                "when none is idle, new ones wait",
                self._connections.connections,
                why,
            )
        self._quiet_until = loop.time() + QUIET
        self._connections.make_room()
        if self._timer is None:
            # Without room, the next client that waits leads here again.
            self._timer = loop.call_later(LOOK_AGAIN, self._accept_again)
            self._listen_for(0)

    def room_made(self) -> None:
        """Accept again after a connection was closed, if the acceptor waits for room."""
        if self._timer is not None and not self._connections.is_full:
            IOLoop.current().remove_timeout(self._timer)
            self._accept_again()

    def _accept_again(self) -> None:
        self._timer = None
        self._listen_for(IOLoop.READ)

    def _listen_for(self, events: int) -> None:
        for listening in self._listening:
            IOLoop.current().update_handler(listening, events)
