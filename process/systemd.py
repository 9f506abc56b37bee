"""What systemd and the program tell each other: sockets that it has opened, and how far we are.

There is no library for it, as both are a few lines: sd_listen_fds(3) and sd_notify(3). Podman and
others that speak these protocols do as well.
"""

import logging
import os
import socket

#: The first descriptor that is handed over (sd_listen_fds(3), SD_LISTEN_FDS_START).
FIRST = 3

#: Seconds that a message may wait for whoever is to read it.
PATIENCE = 1.0

log = logging.getLogger("friendlyhello")


def inherited_sockets() -> list[socket.socket]:
    """Return the listening sockets that were opened for this process, as a ``.socket`` unit does.

    They are no longer inherited by what this process starts.

    :return: none where ``LISTEN_PID`` names another process, as one that has started this one.
    :raises RuntimeError: when ``LISTEN_FDS`` is no number, or one of them is not to be served on.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    number = os.environ.get("LISTEN_FDS", "")
    if not (number.isascii() and number.isdigit()):
        raise RuntimeError(f"LISTEN_FDS={number}: allowed is a number")
    return [_listening(descriptor) for descriptor in range(FIRST, FIRST + int(number))]


def _listening(descriptor: int) -> socket.socket:
    """Return a descriptor's socket, which listens for TCP.

    :raises RuntimeError: when it is something else.
    """
    wrong = f"LISTEN_FDS: descriptor {descriptor} is no listening TCP socket"
    try:
        one = socket.socket(fileno=descriptor)
    except OSError as error:
        raise RuntimeError(f"{wrong}: {error.strerror}") from None
    is_tcp = one.family in (socket.AF_INET, socket.AF_INET6)
    if not (is_tcp and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        one.close()
        raise RuntimeError(wrong)
    one.set_inheritable(False)
    one.setblocking(False)
    return one


def notify(state: str) -> None:
    """Tell the service manager how far this process is; nothing where none asks for it.

    :arg state: ``READY=1`` or ``STOPPING=1``, as sd_notify(3) lists them.
    """
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    if place.startswith("@"):  # a name that is in no folder (unix(7), abstract)
        place = "\0" + place[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
            messenger.settimeout(PATIENCE)
            messenger.connect(place)
            messenger.send(state.encode())
    except OSError as error:
        log.warning("cannot send %s to NOTIFY_SOCKET: %s", state, error.strerror or error)
