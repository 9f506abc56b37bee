"""A listening socket that rests while there are no descriptors to accept connections with."""

import errno
import logging
import socket
from typing import Any

from tornado.ioloop import IOLoop

#: What accept(2) fails with for lack of descriptors or memory, and the seconds until the next try.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
REST = 0.5

log = logging.getLogger("friendlyhello")


class Listening(socket.socket):
    """Listens, and rests while no connection can be had, where Tornado would spin and log."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        :raises BlockingIOError: when there is none.
        """
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.warning("accepting no connections for %g s: %s", REST, error.strerror)
            loop = IOLoop.current()
            loop.update_handler(self.fileno(), 0)
            loop.call_later(REST, self._go_on, loop)
            raise BlockingIOError from None

    def _go_on(self, loop: IOLoop) -> None:
        if self.fileno() != -1:  # it was not closed meanwhile
            loop.update_handler(self.fileno(), IOLoop.READ)
