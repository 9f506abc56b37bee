"""The pages, one module each; the routes are listed here."""

import re
from collections.abc import Mapping

from tornado.routing import URLSpec
from tornado.web import RequestHandler

from config import Settings, host_name
from counter import Visits
from handlers.base import COMMON_HEADERS, NotFoundHandler, error_body
from handlers.echo import EchoHandler
from handlers.faults import Faults, FaultsHandler, SharedFaults
from handlers.faulty import FaultyHelloHandler
from handlers.health import HealthHandler, ReadyHandler
from handlers.hello import Greeting, HelloHandler
from handlers.live import EventsHandler, LiveHandler
from handlers.metrics import MetricsHandler
from handlers.openapi import OpenAPIHandler
from handlers.static import FOLDER, PATHS, StaticHandler
from handlers.version import VersionHandler
from watch import Broadcast, Metrics

__all__ = [
    "COMMON_HEADERS",
    "Faults",
    "NotFoundHandler",
    "SharedFaults",
    "error_body",
    "of_each_port",
    "route_names",
    "routes",
]

#: Paths for the people who run the server. With ``--admin-port`` only the admin port has them.
ADMIN = ("/metrics", "/faults", "/version")

#: Paths that balancers and orchestrators ask for. Both ports have them.
HEALTH = ("/healthz", "/readyz")


def routes(
    settings: Settings,
    visits: Visits,
    live: Broadcast,
    metrics: Metrics,
    faults: SharedFaults | None,
    max_streams: int,
) -> list[URLSpec]:
    """Return every path with its handler and the handler's arguments.

    :arg visits: the counter.
    :arg live: sends events to the clients of ``/live/events``.
    :arg metrics: all other counts.
    :arg faults: the replica's faults; None when clients may not ask for faults.
    :arg max_streams: how many clients may read ``/live/events``.
    """
    greeting = Greeting(settings.name, host_name(), settings.version_label, settings.labels)
    hello = {"greeting": greeting, "visits": visits}
    wrong = {"faults": faults} if faults else {}
    return [
        URLSpec(r"/", FaultyHelloHandler if faults else HelloHandler, hello | wrong),
        URLSpec(r"/healthz", HealthHandler, wrong),
        URLSpec(r"/readyz", ReadyHandler, {"visits": visits, **wrong}),
        URLSpec(r"/live", LiveHandler),
        URLSpec(r"/live/events", EventsHandler, {"live": live, "most": max_streams}),
        URLSpec(PATHS, StaticHandler, {"path": FOLDER}, name="/static/{file}"),
        URLSpec(r"/metrics", MetricsHandler, {"metrics": metrics, "texts": {}}),
        URLSpec(r"/openapi\.yaml", OpenAPIHandler, name="/openapi.yaml"),
        URLSpec(r"/version", VersionHandler),
        *([URLSpec(r"/echo", EchoHandler)] if settings.echo else []),
        *([URLSpec(r"/faults", FaultsHandler, wrong)] if faults else []),
    ]


def of_each_port(settings: Settings, rules: list[URLSpec]) -> list[list[URLSpec]]:
    """Return the rules of the page's port, and the admin port's if there is an admin port."""
    ports = [rules]
    if settings.admin_port is not None:
        ports = [
            [rule for rule in rules if _path(rule) not in ADMIN],
            [rule for rule in rules if _path(rule) in ADMIN + HEALTH],
        ]
    return [_below(settings.path_prefix, those) for those in ports]


def _below(prefix: str, rules: list[URLSpec]) -> list[URLSpec]:
    """Return rules for the same paths below a prefix; the prefix alone leads to the page too.

    :arg prefix: such as ``/hello``; "" leaves the paths as they are.
    """
    if not prefix:
        return rules
    moved = []
    for rule in rules:
        path = rule.regex.pattern
        for end in (path, "$") if path == "/$" else (path,):
            pattern = re.escape(prefix) + end
            moved.append(URLSpec(pattern, rule.handler_class, rule.kwargs))
    return moved


def route_names(rules: list[URLSpec]) -> Mapping[type[RequestHandler], str]:
    """Return the name of each handler's route: its path, or a pattern for several paths."""
    return {rule.handler_class: rule.name or _path(rule) for rule in rules}


def _path(rule: URLSpec) -> str:
    return rule.regex.pattern.removesuffix("$")
