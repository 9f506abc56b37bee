"""DIR, which only its user may use, and the place of Valkey's socket."""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from embedded.journal import PARTS

#: The folder in DIR for the locks, and for the socket if the file system takes sockets.
RUN = Path("run")

SOCKET = "valkey.sock"

#: A socket that is made for a trial. Its name is as long as the real name.
_TRIAL = "valkey.test"


def prepare(data: Path) -> None:
    """Make DIR if it is missing, and make sure that no other user can write to it.

    :raises PermissionError: when other users may write to DIR. They could replace each file in it,
        whatever the mode of the file. Only the user may change the mode of an existing folder.
    :raises OSError: when DIR cannot be used.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mode-", dir=data) as new:
        # A file system without modes, such as vfat, shows the same mode for all files.
        has_modes = not os.stat(new).st_mode & 0o077
    if has_modes and (mode := stat.S_IMODE(data.stat().st_mode)) & 0o022:
        raise PermissionError(
            f"other users may write to it, as its mode is {mode:04o}; "
            "change the mode (chmod go-w), or name a folder in it"
        )
    (data / RUN).mkdir(mode=0o700, exist_ok=True)
    for one in (data / RUN, data / PARTS):
        if has_modes and one.exists():
            one.chmod(0o700)


@contextlib.contextmanager
def socket_folder(data: Path) -> Iterator[Path | None]:
    """Find a folder for the socket. If this makes a new folder, remove it at the end.

    The socket cannot be in DIR if the file system of DIR takes no sockets, or if its path would be
    too long: macOS allows 104 bytes, Linux 108, with the final NUL.

    :return: None if the socket can be in DIR; else a new private folder, in ``XDG_RUNTIME_DIR`` or
        in the system's temporary folder.
    :raises OSError: when no folder takes the socket.
    """
    private = _private_folder(data)
    try:
        yield private
    finally:
        if private:
            shutil.rmtree(private, ignore_errors=True)


def shorter(path: Path) -> str:
    """Return the absolute or the relative form of a path, whichever is shorter.

    The path of a socket may have few bytes only.
    """
    return min(str(path.absolute()), os.path.relpath(path), key=len)


def _private_folder(data: Path) -> Path | None:
    with contextlib.suppress(OSError):
        _try(data / RUN)
        return None
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()):
        if place:
            try:
                return _made_private(place)
            except OSError as error:
                why = error
    raise why


def _made_private(place: str) -> Path:
    private = Path(tempfile.mkdtemp(prefix="friendlyhello-", dir=place))
    try:
        _try(private)
    except OSError:
        private.rmdir()
        raise
    return private


def _try(folder: Path) -> None:
    """Bind a socket in a folder, and remove it.

    :raises OSError: when the folder takes no socket.
    """
    trial = folder / _TRIAL
    trial.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(shorter(trial))
    trial.unlink()
