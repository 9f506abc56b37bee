"""The table of settings, with the default, the check and the help of each."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from config import checks
from config.checks import Network
from config.redis_url import URLS, redis_url
from config.wait import Wait, duration


def _setting(default: str | None, check: Callable[[str], Any], help: str) -> Any:
    """Return a field of `Settings`.

    :arg default: as a user would write it.
    :arg check: reads the text of the setting; see `config.checks`.
    :arg help: what ``--help`` says.
    """
    return dataclasses.field(
        default=None if default is None else check(default),
        metadata={"default": default, "check": check, "help": help},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of the program. ``Settings()`` has every default.

    ``load`` reads them from the command line and the environment.
    """

    name: str = _setting("world", checks.readable, "the name that the page greets")
    address: str | None = _setting(
        None,
        checks.listening_address,
        "the address to listen on; unset or ::, every interface, IPv4 and IPv6",
    )
    port: int = _setting(
        "80", checks.whole(0, 65535), "the TCP port; 0 picks a free one and logs it"
    )
    redis_url: str = _setting("redis://redis:6379/0", redis_url, f"where Redis is: {URLS}")
    redis_password_file: str | None = _setting(
        None,
        checks.path,
        "a file that holds Redis's password, as Docker and Kubernetes mount secrets",
    )
    redis_sentinel_password_file: str | None = _setting(
        None, checks.path, "a file that holds the sentinels' own password"
    )
    redis_timeout: float = _setting(
        "2", checks.seconds(0.001), "seconds that a visit may wait for Redis in all"
    )
    redis_wait: int = _setting(
        "0",
        checks.whole(0, 1000),
        "replicas that must acknowledge a visit before its number is shown",
    )
    processes: int = _setting(
        "1",
        checks.whole(0, 1024),
        "worker processes that share the port; 0: one for each core that they may use",
    )
    drain_delay: float = _setting(
        "0",
        checks.seconds(0),
        "seconds after SIGTERM in which the server is unready, but still accepts connections",
    )
    grace: float = _setting(
        "5", checks.seconds(0), "seconds that requests in flight have to finish after SIGTERM"
    )
    access_log: bool = _setting("true", checks.boolean, "one log line for each request")
    log_format: str = _setting("text", checks.choice("text", "json"), "text or json")
    log_level: str = _setting(
        "info",
        checks.choice("debug", "info", "warning", "error", "critical", warn="warning"),
        "debug, info, warning, error or critical: the lowest level to log; probes are at debug",
    )
    idle_timeout: float = _setting(
        "75",
        checks.seconds(1),
        "seconds that a kept connection may be idle; choose more than the balancer has",
    )
    tls_cert: str | None = _setting(
        None,
        checks.path,
        "the PEM file of the certificate for HTTPS, read again when it changes",
    )
    tls_key: str | None = _setting(
        None, checks.path, "the PEM file of its private key, read again when it changes"
    )
    tls_client_ca: str | None = _setting(
        None, checks.path, "a PEM file: clients must show a certificate that this CA signed"
    )
    trusted_proxies: tuple[Network, ...] | None = _setting(
        None,
        checks.networks,
        "networks of proxies, as in 10.0.0.0/8,fd00::/8: believe their X-Forwarded-For and -Proto",
    )
    path_prefix: str = _setting(
        "", checks.path_prefix, "a path before every other path, such as /hello"
    )
    version_label: str | None = _setting(
        None,
        checks.label,
        "the version that runs; JSON, X-App-Version, /live and /metrics show it",
    )
    labels: Mapping[str, str] | None = _setting(
        None,
        checks.labels,
        "key=value,…: where the replica runs, such as its node or zone; JSON, /live and /metrics "
        "show it",
    )
    admin_port: int | None = _setting(
        None,
        checks.whole(0, 65535),
        "a separate port for /metrics, /faults and /version; 0 picks a free one and logs it",
    )
    admin_address: str | None = _setting(
        "127.0.0.1",
        checks.listening_address,
        "with --admin-port: the address to listen on; :: is every interface",
    )
    echo: bool = _setting("false", checks.boolean, "answer /echo with the request as it arrived")
    faults: bool = _setting(
        "false",
        checks.boolean,
        "let clients ask for faults: /?wait=250ms, /?status=503 and PUT /faults",
    )
    fault_rate: float = _setting(
        "0", checks.share, "with --faults: the share of pages answered 503"
    )
    fault_wait: Wait = _setting(  # noqa: RUF009  it returns a field
        "0", Wait.of, "with --faults: how long each page waits, such as 200ms or 100ms-2s"
    )
    start_wait: float = _setting(
        "0", duration, "with --faults: how long until the server listens, such as 20s"
    )
    healthcheck: bool = dataclasses.field(
        default=False,
        metadata={
            "default": None,
            "check": checks.boolean,
            "help": "ask the server with these settings for /healthz, and exit with 0 or 1",
            "flag_only": True,
        },
    )


#: Settings that need another one: for each of them, the other.
TOGETHER = {
    "tls_cert": "tls_key",
    "tls_key": "tls_cert",
    "tls_client_ca": "tls_cert",
    "admin_address": "admin_port",
    "fault_rate": "faults",
    "fault_wait": "faults",
    "start_wait": "faults",
}

#: The fields of the settings, by name.
FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """Return the environment variable of a setting: its flag in capitals.

    Shorter names would not do: other tools set ``PREFIX`` and ``VERSION`` for their own purposes.
    """
    return name.upper()
