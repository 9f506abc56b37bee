"""Ports that stay a test's own."""

import contextlib
import socket
from collections.abc import Iterator


def held_port(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a socket that holds a port, any if 0, and to which connecting is refused.

    Whoever has it may listen on that port with another socket (SO_REUSEADDR), and stop, as often
    as need be. A port that nobody holds meanwhile is given to others, or to the very connection
    that tries it, which then reaches itself.
    """
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((host, port))
    return holder


@contextlib.contextmanager
def full_backlog(host: str, port: int) -> Iterator[None]:
    """Let connecting hang: nobody accepts, and no more fit into the queue."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(held_port(host, port)).listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield
