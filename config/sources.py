"""Reading the settings from the command line and the environment."""

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from tornado.options import OptionParser

from config.checks import boolean
from config.errors import SettingError, shown
from config.redis_url import redacted
from config.table import FIELDS, TOGETHER, Settings, flag_of, variable_of
from config.version import VERSION


class _Options(OptionParser):
    """Tornado's parser of flags, with a help that names the environment variables, too."""

    def print_help(self, file: TextIO | None = None) -> None:
        """Print every setting to ``file``, or to standard output when ``file`` is None."""
        with _printing():
            print(
                "Usage: python server.py [--flag=value …]\n\n"
                "A page that greets, names its host and counts visits in Redis. Each flag but\n"
                "the last three has an environment variable of the same name (--redis-url:\n"
                "REDIS_URL). The variable counts when the flag is not given.\n",
                file=file,
            )
            for name, field in FIELDS.items():
                default = field.metadata["default"]
                text = field.metadata["help"] + (f" (default {default})" if default else "")
                for i, line in enumerate(textwrap.wrap(text, 46, break_on_hyphens=False)):
                    print(f"  {flag_of(name) if i == 0 else '':32}{line}", file=file)
            print(f"  {'--version':32}show the program's version, and exit", file=file)
            print(f"  {'--help':32}show this, and exit", file=file)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Print to standard output, and write it at once.

    A reader that has left, such as ``head``, is no error.

    :raises SettingError: when standard output cannot be written.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # At its end, Python would try to write the rest, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise SettingError(f"cannot write to standard output: {error.strerror}") from None


def _show_version(is_asked: bool) -> None:
    if is_asked:
        with _printing():
            print(f"friendlyhello {VERSION}")
        sys.exit(0)


def _given_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Return the text of each flag on a command line, by the name of its setting.

    :raises SettingError: for an unknown flag, or a flag without its value.
    """
    options = _Options()
    for name in FIELDS:
        options.define(name, type=str)
    options.define("version", type=bool, callback=_show_version)
    normal = [""]
    for argument in arguments:
        flag, equals, _ = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or flag not in options:
            # Leave out the text behind the equals sign: with a mistyped flag it may be a password.
            what = shown(redacted(argument.partition("=")[0]))
            raise SettingError(f"{what}: no such flag; --help lists all flags")
        if not equals and flag not in ("help", "version"):
            if FIELDS[flag.replace("-", "_")].metadata["check"] is not boolean:
                raise SettingError(f"{argument}: a value is missing; write {argument}=VALUE")
            argument += "=true"  # as Tornado reads a bare switch
        normal.append(argument)
    options.parse_command_line(normal)
    return {name: value for name in FIELDS if (value := options[name]) is not None}


def load(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings.

    :arg arguments: the command line after the program's name; `sys.argv` when None.
    :arg environment: the variables; `os.environ` when None. An empty one counts as unset.
    :return: the settings, each checked.
    :raises SettingError: for the first flag or value that is not allowed, or when standard output
        does not take the help or the version.
    :raises SystemExit: after ``--help`` and ``--version``.
    """
    environment = os.environ if environment is None else environment
    flags = _given_flags(sys.argv[1:] if arguments is None else arguments)
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for name, field in FIELDS.items():
        source, text = flag_of(name), flags.get(name)
        if text is None and not field.metadata.get("flag_only"):
            source = variable_of(name)
            text = environment.get(source) or None
        if text is None:
            continue
        given[name] = f"{source}={shown(redacted(text) if name == 'redis_url' else text)}"
        try:
            values[name] = field.metadata["check"](text)
        except ValueError as allowed:
            raise SettingError(f"{given[name]}: allowed is {allowed}") from None
    for name, other in TOGETHER.items():
        if name in given and (values.get(other) is None or values[other] is False):
            needed = f"allowed only together with {flag_of(other)}"
            raise SettingError(f"{given[name]}: {needed}")
    return Settings(**values)
