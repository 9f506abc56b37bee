"""A listening socket with accept backoff."""

import errno
import logging
import socket
from typing import Any

from tornado.ioloop import IOLoop

#: What accept(2) fails with for lack of descriptors or memory.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Seconds until it tries again.
BACKOFF = 0.5

log = logging.getLogger("http1")


class Listener(socket.socket):
    """Backs off while no connection can be accepted, where Tornado would spin and log."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        :raises BlockingIOError: when there is none.
        """
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.warning("accepting no connections for %g s: %s", BACKOFF, error.strerror)
            loop = IOLoop.current()
            loop.update_handler(self.fileno(), 0)
            loop.call_later(BACKOFF, self._resume, loop)
            raise BlockingIOError from None

    def _resume(self, loop: IOLoop) -> None:
        if self.fileno() != -1:  # it was not closed meanwhile
            loop.update_handler(self.fileno(), IOLoop.READ)
