"""A password in a file. The file may change."""

import logging
from pathlib import Path

from config import SettingError, Settings, flag_of, shown

log = logging.getLogger("friendlyhello")


def password_file(settings: Settings, name: str) -> "PasswordFile | None":
    """Read the password file of a setting.

    :arg name: the name of the setting.
    :return: None when the setting names no file.
    :raises SettingError: when the file cannot be read, is empty or is not UTF-8.
    """
    path = getattr(settings, name)
    return None if path is None else PasswordFile(path, flag_of(name))


class PasswordFile:
    """A password in a file. The file may change.

    :arg path: of the file.
    :arg flag: the flag that errors name.
    :raises SettingError: when the file cannot be read, is empty or is not UTF-8.
    """

    def __init__(self, path: str, flag: str) -> None:
        self._path = path
        self._flag = flag
        self._last = self._read()
        self._is_lost = False

    def __call__(self) -> str:
        """Return the present password; while the file cannot be read, the last password.

        This reads a pipe, such as a shell's ``<(…)``, only once: then the pipe is empty.
        """
        try:
            if Path(self._path).is_fifo():
                return self._last
            self._last = self._read()
            self._is_lost = False
        except SettingError as error:
            if not self._is_lost:
                log.warning("%s; going on with the last password", error)
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
