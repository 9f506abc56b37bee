"""Every setting of friendlyhello: its flag, environment variable, default and check.

A setting is a field of `Settings`. Its name gives the flag (``--redis-url``) and the
environment variable (``REDIS_URL``). A flag beats the variable. The variable beats the default.
"""

from config.checks import host_name, share
from config.errors import SettingError, shown
from config.redis_url import embedded_folder
from config.sources import load
from config.table import Settings, flag_of
from config.version import VERSION, commit
from config.wait import Wait, duration, milliseconds, size, size_text

__all__ = [
    "VERSION",
    "SettingError",
    "Settings",
    "Wait",
    "commit",
    "duration",
    "embedded_folder",
    "flag_of",
    "host_name",
    "load",
    "milliseconds",
    "share",
    "shown",
    "size",
    "size_text",
]
