"""Every setting of friendlyhello: its flag, environment variable, default and check.

A setting is a field of `Settings`. Its name gives the flag (``--redis-url``) and the
environment variable (``REDIS_URL``); a flag beats the variable, which beats the default.
"""

import contextlib
import dataclasses
import ipaddress
import logging
import os
import re
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import parse_qsl, urlsplit

from tornado.options import OptionParser

#: The program's version, here and nowhere else by hand: `make stamp` writes it into the files that
#: cannot read it from here.
VERSION = "1.0.0"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = logging.getLogger("friendlyhello")


class SettingError(ValueError):
    """A setting that cannot be used; the message is one line, fit for the user."""


def readable(text: str) -> str:
    r"""Return a text of the system's as UTF-8 can have it.

    Bytes that are not UTF-8 come as lone surrogates (PEP 383), with which no page could be written;
    they become escapes, as in ``caf\xe9``.
    """
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def host_name() -> str:
    """Return this machine's name, a container's id in a container, fit for a page."""
    return readable(socket.gethostname())


def _text(text: str) -> str:
    return readable(text)


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("the path of a file")
    return text


def _address(text: str) -> str:
    """Accept an IP address or a host name (RFC 1123, section 2.1)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        label = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
        if not re.fullmatch(rf"{label}(\.{label})*\.?", text) or len(text) > 253:
            raise ValueError("an IP address or a host name") from None
    return text


def _listening_address(text: str) -> str | None:
    """Accept the same, but for ``::``, which is every interface, as it is when unset.

    Bound to that address, Tornado's sockets take IPv6 alone (IPV6_V6ONLY; RFC 3493, 5.3). Those of
    most other programs take both, and so it is meant.
    """
    with contextlib.suppress(ValueError):
        if (address := ipaddress.ip_address(text)).version == 6 and address.is_unspecified:
            return None
    return _address(text)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        # Not int() alone, which also takes "8_0", " 80 " and other scripts' digits.
        if re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"a whole number from {least} to {most}")

    return check


def _seconds(least: float) -> Callable[[str], float]:
    most = 3600

    def check(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", text):
            seconds = float(text)
            if least <= seconds <= most:
                return seconds
        raise ValueError(f"seconds, a number from {least:g} to {most}")

    return check


def _boolean(text: str) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if (word := text.lower()) not in words:
        raise ValueError("true or false")
    return words[word]


def _label(text: str) -> str:
    # It is part of a header, of a log line and of a metric's label.
    if not re.fullmatch(r"[A-Za-z0-9._+~:/@-]{1,128}", text):
        raise ValueError("1 to 128 letters, digits and ._+~:/@-")
    return text


#: Labels that there may be: each is read by whoever watches any replica, once a second.
MAX_LABELS = 8


def _labels(text: str) -> dict[str, str]:
    """Accept ``key=value,…``; one whose value is empty, as a downward API may give it, is left out.

    Keys are those of Prometheus, which keeps ``__…`` for itself
    (https://prometheus.io/docs/concepts/data_model/#metric-names-and-labels).
    """
    labels: dict[str, str] = {}
    for one in readable(text).split(","):
        key, equals, value = one.partition("=")
        if (
            not (re.fullmatch("(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,62}", key) and equals)
            or key in labels
            or key == "version"  # which --version-label says
            or not (len(value) <= 128 and value.isprintable())
            or len(labels) == MAX_LABELS
        ):
            raise ValueError(
                f"key=value,… , at most {MAX_LABELS}: a key of up to 63 letters, digits and _, "
                "once, not version nor __…; a value of up to 128 printable characters"
            )
        labels[key] = value
    return {key: value for key, value in labels.items() if value}


#: How long an answer can be made to wait: up to 10 seconds.
_WAIT = re.compile(r"(?P<ms>[0-9]{1,4}|10000)ms|(?P<s>[0-9](\.[0-9]{1,3})?|10)s")


def milliseconds(text: str) -> int:
    """Return how long a wait is.

    :raises ValueError: when the text says none; says what is allowed.
    """
    match = _WAIT.fullmatch(text)
    if match is None:
        raise ValueError("up to 10s, as in 250ms or 1.5s")
    return int(match["ms"]) if match["ms"] else round(1000 * float(match["s"]))


class Wait(NamedTuple):
    """How long an answer waits, drawn evenly from a range of milliseconds."""

    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, text: str) -> "Wait":
        """Read ``0``, a wait, or a range of two.

        :raises ValueError: when the text is none of them; says what is allowed.
        """
        try:
            bounds = [milliseconds(one) for one in text.split("-")] if text != "0" else [0]
            if len(bounds) <= 2 and bounds[0] <= bounds[-1]:
                return cls(bounds[0], bounds[-1])
        except ValueError:
            pass
        raise ValueError("0, a time up to 10s as in 200ms or 1.5s, or a range as in 100ms-2s")

    def __str__(self) -> str:
        """Return it as `of` reads it."""
        least, most = (f"{ms}ms" if ms % 1000 else f"{ms // 1000}s" for ms in self)
        return "0" if not self.most else least if least == most else f"{least}-{most}"


def _share(text: str) -> float:
    if re.fullmatch(r"[01](\.[0-9]{0,9})?|\.[0-9]{1,9}", text) and float(text) <= 1:
        return float(text)
    raise ValueError("a number from 0 to 1")


def _prefix(text: str) -> str:
    """Accept a path, and return it without the slash at its end; "" when it is that alone.

    Its characters are those that no client writes in two ways (RFC 3986, 2.3), and no segment is
    one that clients take out of a path (5.2.4).
    """
    if not re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*/?", text) or len(text) > 128:
        raise ValueError("a path such as /hello: up to 128 letters, digits and -._~/")
    return text.removesuffix("/")


def _networks(text: str) -> tuple[Network, ...]:
    """Accept networks, each an address and the length of its prefix (RFC 4632, RFC 4291, 2.3)."""
    try:
        return tuple(_network(one.strip(" ")) for one in text.split(","))
    except ValueError:
        raise ValueError(
            "networks, separated by commas, as in 10.0.0.0/8,fd00::/8: no bits set after the prefix"
        ) from None


def _network(text: str) -> Network:
    # Not ip_network() alone, which also takes masks and zones. IPv4 mapped into IPv6 would never
    # match, as such an address counts as IPv4.
    network = ipaddress.ip_network(text)
    is_mapped = network.version == 6 and network.network_address.ipv4_mapped
    if is_mapped or not re.fullmatch("[0-9A-Fa-f:.]+(/[0-9]{1,3})?", text):
        raise ValueError
    return network


def _choice(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return check


_URLS = (
    "redis://[[user]:password@]host[:port][/db], rediss://… , unix:///path, embedded:DIR, "
    "redis+sentinel://host[:port],…/service[/db] or redis+cluster://host[:port],…"
)

# What redis-py reads from a URL's query, as far as it is of use here. The rest (timeouts,
# retries, protocol) would undo what the counter promises.
_TLS_QUERY = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}


_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]*)"
    r"(/(?P<service>[A-Za-z0-9._-]+)(?P<db>/[0-9]*)?|/)?(?P<query>\?[^#]*)?"
)


def embedded_folder(url: str) -> str | None:
    """Return DIR of ``embedded:DIR``, or None for any other Redis URL."""
    return url.removeprefix("embedded:") if url.startswith("embedded:") else None


def _redis_url(text: str) -> str:
    if embedded_folder(text):
        return text
    if not text.isprintable():  # urlsplit() drops line ends
        raise ValueError(_URLS)
    if several := _SEVERAL.fullmatch(text):
        if bool(several["service"]) != (several["kind"] == "sentinel"):
            raise ValueError(_URLS)
        for host in several["hosts"].split(","):
            query = several["query"] or ""
            _redis_url(
                f"{several['scheme']}://{several['user'] or ''}{host}{several['db'] or ''}{query}"
            )
        return text
    try:
        url = urlsplit(text)
        query = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
        port = url.port  # raises ValueError when it is not a number or above 65535
    except ValueError:
        raise ValueError(_URLS) from None
    if url.scheme == "unix":
        fits = bool(url.path) and not url.hostname
    else:
        database = re.fullmatch("(/[0-9]{0,9})?", url.path)
        fits = bool(url.scheme in ("redis", "rediss") and port != 0 and database)
        fits = fits and _is_address(url.hostname or "")
    if not fits or url.fragment or not re.fullmatch("[0-9]{1,9}", query.get("db", "0")):
        raise ValueError(_URLS)
    known = {"db"} | (_TLS_QUERY if url.scheme == "rediss" else set())
    if not query.keys() <= known:
        raise ValueError(f"after '?' only {', '.join(sorted(known))}")
    if query.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
        raise ValueError("ssl_cert_reqs=none, optional or required")
    _boolean(query.get("ssl_check_hostname", "true"))
    return text


def _is_address(text: str) -> bool:
    try:
        return bool(_address(text))
    except ValueError:
        return False


def _setting(
    default: str | None, check: Callable[[str], Any], help: str, variable: str | None = None
) -> Any:
    """A field of `Settings`: its default as a user would write it, its check, its help.

    :arg variable: the environment variable, where it has another name.
    """
    return dataclasses.field(
        default=None if default is None else check(default),
        metadata={"default": default, "check": check, "help": help, "variable": variable},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the program runs with; ``Settings()`` has every default.

    ``load`` fills it from the command line and the environment.
    """

    name: str = _setting("world", _text, "who is greeted")
    address: str | None = _setting(
        None,
        _listening_address,
        "where to listen; every interface, IPv4 and IPv6, when unset or ::",
    )
    port: int = _setting("80", _whole(0, 65535), "the TCP port; 0 picks a free one and logs it")
    redis_url: str = _setting("redis://redis:6379/0", _redis_url, f"where Redis is: {_URLS}")
    redis_password_file: str | None = _setting(
        None, _path, "a file that holds Redis's password, as Docker and Kubernetes mount secrets"
    )
    redis_sentinel_password_file: str | None = _setting(
        None, _path, "a file that holds the sentinels' own password"
    )
    redis_timeout: float = _setting(
        "2", _seconds(0.001), "seconds a visit may wait for Redis, all told"
    )
    redis_wait: int = _setting(
        "0", _whole(0, 1000), "replicas that must acknowledge a visit before its number is shown"
    )
    processes: int = _setting(
        "1",
        _whole(0, 1024),
        "worker processes sharing the port; 0 means one for each core that it may use",
    )
    drain_delay: float = _setting(
        "0", _seconds(0), "seconds that the server, unready, goes on accepting after SIGTERM"
    )
    grace: float = _setting("5", _seconds(0), "seconds that requests in flight get after SIGTERM")
    access_log: bool = _setting("true", _boolean, "one log line a request")
    log_format: str = _setting("text", _choice("text", "json"), "text or json")
    log_level: str = _setting(
        "info",
        _choice("debug", "info", "warning", "error"),
        "debug, info, warning or error: the least that is logged; probes are at debug",
    )
    idle_timeout: float = _setting(
        "75",
        _seconds(1),
        "seconds that a kept connection may be idle; longer than the balancer's",
    )
    tls_cert: str | None = _setting(
        None, _path, "a PEM file, read again when it changes: serve HTTPS with this certificate"
    )
    tls_key: str | None = _setting(None, _path, "the PEM file of its private key, likewise")
    tls_client_ca: str | None = _setting(
        None, _path, "a PEM file: clients must show a certificate that this CA signed"
    )
    trusted_proxies: tuple[Network, ...] | None = _setting(
        None,
        _networks,
        "networks, as in 10.0.0.0/8,fd00::/8, whose X-Forwarded-For and -Proto are believed",
    )
    prefix: str = _setting("", _prefix, "a path that stands before every path, as /hello")
    version_label: str | None = _setting(
        None,
        _label,
        "which version runs, for JSON, X-App-Version, /live and /metrics (environment: VERSION)",
        variable="VERSION",
    )
    labels: Mapping[str, str] | None = _setting(
        None,
        _labels,
        "key=value,…: where it runs, as node or zone, for JSON, /live and /metrics",
    )
    faults: bool = _setting(
        "false", _boolean, "let clients ask for faults: /?wait=250ms, /?status=503 and PUT /faults"
    )
    fault_rate: float = _setting("0", _share, "with --faults: the share of pages answered 503")
    fault_wait: Wait = _setting(  # noqa: RUF009  it returns a field
        "0", Wait.of, "with --faults: how long each page waits, as 200ms or 100ms-2s"
    )
    healthcheck: bool = dataclasses.field(
        default=False,
        metadata={
            "default": None,
            "check": _boolean,
            "help": "ask the server of these settings for /healthz, and exit 0 or 1",
            "flag_only": True,
        },
    )


#: Settings that mean nothing without another one.
_TOGETHER = {
    "tls_cert": "tls_key",
    "tls_key": "tls_cert",
    "tls_client_ca": "tls_cert",
    "fault_rate": "faults",
    "fault_wait": "faults",
}

_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class _Options(OptionParser):
    """Tornado's parser of flags, its help naming the environment variables too."""

    def print_help(self, file: TextIO | None = None) -> None:
        """Print every setting to ``file``, standard output when it is None."""
        with _printing():
            print(
                "Usage: python server.py [--flag=value …]\n\n"
                "A page that greets, names its host and counts visits in Redis. Each flag but\n"
                "the last three has an environment variable of the same name (--redis-url:\n"
                "REDIS_URL), which is read when the flag is not given.\n",
                file=file,
            )
            for name, field in _FIELDS.items():
                default = field.metadata["default"]
                text = field.metadata["help"] + (f" (default {default})" if default else "")
                for i, line in enumerate(textwrap.wrap(text, 46, break_on_hyphens=False)):
                    print(f"  {_flag(name) if i == 0 else '':32}{line}", file=file)
            print(f"  {'--version':32}show the program's version, and exit", file=file)
            print(f"  {'--help':32}show this, and exit", file=file)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Print to standard output, all of it now.

    :raises SettingError: when it cannot be written. A reader that has left, as ``head`` does, has
        what it wants.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Python would write what is left as it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise SettingError(f"cannot write to standard output: {error.strerror}") from None


def _show_version(is_asked: bool) -> None:
    if is_asked:
        with _printing():
            print(f"friendlyhello {VERSION}")
        sys.exit(0)


def _given_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Return the flags of a command line as text, by the name of their setting."""
    options = _Options()
    for name in _FIELDS:
        options.define(name, type=str)
    options.define("version", type=bool, callback=_show_version)
    normal = [""]
    for argument in arguments:
        flag, equals, _ = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or flag not in options:
            # Without what stands behind the equals sign: it may be a mistyped flag's password.
            what = shown(redacted(argument.partition("=")[0]))
            raise SettingError(f"{what}: no such flag; --help lists them all")
        if not equals and flag not in ("help", "version"):
            if _FIELDS[flag.replace("-", "_")].metadata["check"] is not _boolean:
                raise SettingError(f"{argument}: a value is missing, as in {argument}=VALUE")
            argument += "=true"  # as Tornado reads a bare switch
        normal.append(argument)
    options.parse_command_line(normal)
    return {name: value for name in _FIELDS if (value := options[name]) is not None}


def load(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings.

    :arg arguments: the command line after the program's name; `sys.argv` when None.
    :arg environment: the variables; `os.environ` when None. An empty one counts as unset.
    :return: the settings, each checked.
    :raises SettingError: for the first flag or value that is not allowed, or when what was asked
        for cannot be shown.
    :raises SystemExit: after ``--help`` and ``--version``.
    """
    environment = os.environ if environment is None else environment
    flags = _given_flags(sys.argv[1:] if arguments is None else arguments)
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for name, field in _FIELDS.items():
        source, text = _flag(name), flags.get(name)
        if text is None and not field.metadata.get("flag_only"):
            source = field.metadata["variable"] or name.upper()
            text = environment.get(source) or None
        if text is None:
            continue
        given[name] = f"{source}={shown(redacted(text) if name == 'redis_url' else text)}"
        try:
            values[name] = field.metadata["check"](text)
        except ValueError as allowed:
            raise SettingError(f"{given[name]}: allowed is {allowed}") from None
    for name, other in _TOGETHER.items():
        if name in given and not values.get(other):
            needed = f"allowed is this only together with {_flag(other)}"
            raise SettingError(f"{given[name]}: {needed}")
    return Settings(**values)


def shown(text: str) -> str:
    """Return a user's text as part of one line: no control characters, no endless length."""
    text = repr(text)[1:-1]
    return text if len(text) <= 100 else text[:99] + "…"


def redacted(url: str) -> str:
    """Return a Redis URL without what stands where a password does, well formed or not."""
    scheme = re.sub("^([a-z+]+:/*|/*).*", r"\1", url, flags=re.DOTALL | re.IGNORECASE)
    # Up to the last @, as a password that is not escaped may hold any character.
    hidden, at, place = url.removeprefix(scheme).rpartition("@")
    if "?" in hidden or re.match(":[^/]", place):
        return scheme + "***"
    return scheme + ("***@" if at else "") + re.sub("(password=)[^&]*", r"\1***", place)


def password_file(settings: Settings, name: str) -> "PasswordFile | None":
    """Return the password that a file holds, read by now.

    :arg name: of the setting that names the file.
    :return: None when the setting does.
    :raises SettingError: when it cannot be read, is empty or is not UTF-8.
    """
    path = getattr(settings, name)
    return None if path is None else PasswordFile(path, _flag(name))


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
