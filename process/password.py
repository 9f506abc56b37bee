"""A password in a file, where it may change."""

import logging
from pathlib import Path

from config import SettingError, Settings, flag_of, shown

log = logging.getLogger("friendlyhello")


def password_file(settings: Settings, name: str) -> "PasswordFile | None":
    """Return the password that a file holds, read by now.

    :arg name: of the setting that names the file.
    :return: None when the setting does not.
    :raises SettingError: when it cannot be read, is empty or is not UTF-8.
    """
    path = getattr(settings, name)
    return None if path is None else PasswordFile(path, flag_of(name))


class PasswordFile:
    """A password in a file, where it may change.

    :arg path: the file's.
    :arg flag: what errors name.
    :raises SettingError: when it cannot be read, is empty or is not UTF-8.
    """

    def __init__(self, path: str, flag: str) -> None:
        self._path = path
        self._flag = flag
        self._last = self._read()
        self._is_lost = False

    def __call__(self) -> str:
        """Return the password of now; the last one while the file is missing or being written.

        A pipe, as a shell's ``<(…)`` is one, is read once, as there is no more in it.
        """
        try:
            if Path(self._path).is_fifo():
                return self._last
            self._last = self._read()
            self._is_lost = False
        except SettingError as error:
            if not self._is_lost:
                log.warning("%s; going on with the password that it held", error)
            self._is_lost = True
        return self._last

    def _read(self) -> str:
        where = f"{self._flag}={shown(self._path)}"
        try:
            password = Path(self._path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise SettingError(f"{where}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingError(f"{where}: not UTF-8") from None
        if not password:
            raise SettingError(f"{where}: the file is empty")
        return password
