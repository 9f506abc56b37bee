"""``GET /``: the page that greets, names its host and counts the visit."""

from tornado.escape import xhtml_escape

from handlers.accept import prefers_json
from handlers.base import BaseHandler
from visits import Visits

UNCOUNTED = "cannot connect to Redis, counter disabled"


class HelloHandler(BaseHandler):
    """Greets, as HTML or JSON. Only GET counts a visit."""

    def initialize(self, name: str, hostname: str, visits: Visits) -> None:
        """Take what the page shows.

        :arg name: who is greeted.
        :arg hostname: which replica answers.
        :arg visits: counts the visit.
        """
        self.name = name
        self.hostname = hostname
        self.visits = visits

    def set_default_headers(self) -> None:
        """Add that the answer depends on Accept."""
        super().set_default_headers()
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Vary", "Accept")

    async def get(self) -> None:
        """Count the visit and show its number, or that there is none."""
        number = await self.visits.count()
        if self._wants_json():
            self.write_json(self._as_json(number))
        else:
            self.write(self._as_html(number))

    async def head(self) -> None:
        """Answer GET's headers. Its length is left out (RFC 9110, 8.6): no visit, no number."""
        if self._wants_json():
            self.set_header("Content-Type", "application/json")
        await self.flush()

    def _wants_json(self) -> bool:
        return prefers_json(self.request.headers.get("Accept", ""))

    def _as_html(self, number: int | None) -> str:
        visits = f"<i>{UNCOUNTED}</i>" if number is None else number
        return (
            f"<h3>Hello {xhtml_escape(self.name)}!</h3>"
            f"<b>Hostname:</b> {xhtml_escape(self.hostname)}<br/>"
            f"<b>Visits:</b> {visits}"
        )

    def _as_json(self, number: int | None) -> dict[str, object]:
        page: dict[str, object] = {"name": self.name, "hostname": self.hostname, "visits": number}
        return page if number is not None else page | {"error": UNCOUNTED}
