"""DIR, which is for its user alone, and where the socket of its Valkey can be."""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from embedded.journal import PARTS

#: Where locks are, and the socket where it can be, seen from DIR.
RUN = Path("run")

SOCKET = "valkey.sock"

#: A socket that shows whether there can be one; its name is as long.
_TRIAL = "valkey.test"


class SharedError(RuntimeError):
    """Others may write to DIR; the message says what to do, and is one line."""


def prepare(data: Path) -> None:
    """Make DIR where it is missing, and see to it that nobody else can write what is in it.

    :raises SharedError: when others may. What is in it could be replaced, whatever its own mode,
        and the mode of a folder that was there before is its user's to change.
    :raises OSError: when it cannot be used.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mode-", dir=data) as new:
        # File systems without modes, as vfat and many shared folders, show one for everything.
        has_modes = not os.stat(new).st_mode & 0o077
    if has_modes and (mode := stat.S_IMODE(data.stat().st_mode)) & 0o022:
        raise SharedError(
            f"others may write to it, as its mode is {mode:04o}; "
            "change that (chmod go-w), or name a folder in it"
        )
    (data / RUN).mkdir(mode=0o700, exist_ok=True)
    for one in (data / RUN, data / PARTS):
        if has_modes and one.exists():
            one.chmod(0o700)


@contextlib.contextmanager
def socket_folder(data: Path) -> Iterator[Path | None]:
    """Find where the socket can be; what is made for it is removed at the end.

    :return: None where it can be in DIR; else a private folder, in ``XDG_RUNTIME_DIR`` or the
        system's folder for what is temporary. DIR may be on a file system that takes no sockets,
        and the path of one has few bytes: macOS has 104, Linux 108, with the final NUL.
    :raises OSError: when it can be nowhere.
    """
    try:
        _try(data / RUN)
        yield None
        return
    except OSError:
        pass
    private = _private_folder()
    try:
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def shorter(path: Path) -> str:
    """Return the shorter way to write a path, as a socket's has few bytes."""
    return min(str(path.absolute()), os.path.relpath(path), key=len)


def _private_folder() -> Path:
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

    :raises OSError: when there can be none.
    """
    trial = folder / _TRIAL
    trial.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(shorter(trial))
    trial.unlink()
