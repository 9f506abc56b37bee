"""Talking to systemd: it hands over sockets that it has opened, and hears how far the server is.

Both protocols take a few lines, so this needs no library: sd_listen_fds(3), sd_notify(3). Podman
and other service managers speak them, too.
"""

import logging
import os
import socket

#: The first descriptor that is handed over (sd_listen_fds(3), SD_LISTEN_FDS_START).
FIRST = 3

#: Seconds that a message may wait for its reader.
PATIENCE = 1.0

log = logging.getLogger("friendlyhello")


def inherited_sockets() -> list[socket.socket]:
    """Return the listening sockets that a service manager has opened, such as a ``.socket`` unit.

    Programs that this process starts do not inherit them.

    :return: no sockets when ``LISTEN_PID`` names another process, such as the parent.
    :raises RuntimeError: when ``LISTEN_FDS`` is no number, or names something else than listening
        TCP sockets.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    number = os.environ.get("LISTEN_FDS", "")
    if not (number.isascii() and number.isdigit()):
        raise RuntimeError(f"LISTEN_FDS={number}: allowed is a number")
    return [_listening(descriptor) for descriptor in range(FIRST, FIRST + int(number))]


def _listening(descriptor: int) -> socket.socket:
    """Return the listening TCP socket of a descriptor.

    :raises RuntimeError: when the descriptor is something else.
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
    """Tell the service manager how far the server is. If no manager asks for it, do nothing.

    :arg state: ``READY=1`` or ``STOPPING=1``; see sd_notify(3).
    """
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    if place.startswith("@"):  # an abstract name, outside all folders (unix(7))
        place = "\0" + place[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
            messenger.settimeout(PATIENCE)
            messenger.connect(place)
            messenger.send(state.encode())
    except OSError as error:
        log.warning("cannot send %s to NOTIFY_SOCKET: %s", state, error.strerror or error)
