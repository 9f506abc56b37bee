"""The pages, one module each; the routes are listed here."""

from tornado.routing import URLSpec

from handlers.health import HealthHandler, ReadyHandler
from handlers.hello import Greeting, HelloHandler
from handlers.live import EventsHandler, LiveHandler
from handlers.static import FOLDER, PATHS, StaticHandler
from live import Live
from visits import Visits


def routes(name: str, hostname: str, visits: Visits, live: Live) -> list[URLSpec]:
    """Return every path with its handler and what the handler needs.

    :arg name: who is greeted.
    :arg hostname: which replica answers.
    :arg visits: the counter.
    :arg live: tells those who watch.
    """
    hello = {"greeting": Greeting(name, hostname), "visits": visits}
    return [
        URLSpec(r"/", HelloHandler, hello),
        URLSpec(r"/healthz", HealthHandler),
        URLSpec(r"/readyz", ReadyHandler, {"visits": visits}),
        URLSpec(r"/live", LiveHandler),
        URLSpec(r"/live/events", EventsHandler, {"live": live}),
        URLSpec(PATHS, StaticHandler, {"path": FOLDER}),
    ]
