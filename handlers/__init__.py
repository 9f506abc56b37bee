"""The pages, one module each; the routes are listed here."""

from tornado.routing import URLSpec

from handlers.health import HealthHandler, ReadyHandler
from handlers.hello import Greeting, HelloHandler
from handlers.metrics import MetricsHandler
from metrics import Metrics
from visits import Visits


def routes(name: str, hostname: str, visits: Visits, metrics: Metrics) -> list[URLSpec]:
    """Return every path with its handler and what the handler needs.

    :arg name: who is greeted.
    :arg hostname: which replica answers.
    :arg visits: the counter.
    :arg metrics: what is counted, besides.
    """
    hello = {"greeting": Greeting(name, hostname), "visits": visits}
    return [
        URLSpec(r"/", HelloHandler, hello),
        URLSpec(r"/healthz", HealthHandler),
        URLSpec(r"/readyz", ReadyHandler, {"visits": visits}),
        URLSpec(r"/metrics", MetricsHandler, {"metrics": metrics}),
    ]
