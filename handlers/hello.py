"""``GET /``: the page that greets, names its host and counts the visit."""

from collections.abc import Mapping
from typing import ClassVar

from tornado.escape import xhtml_escape

from counter import Visits
from handlers.accept import prefers_json
from handlers.base import BaseHandler

UNCOUNTED = "cannot connect to Redis, counter disabled"


class Greeting:
    """All that the page says except the visit's number.

    :arg name: the name that the page greets.
    :arg hostname: the replica's hostname.
    :arg version: the label of the replica's version; only JSON shows it. None for none.
    :arg labels: the replica's labels; only JSON shows them. None for none.
    """

    def __init__(
        self,
        name: str,
        hostname: str,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._json: dict[str, object] = {"name": name, "hostname": hostname}
        if version:
            self._json["version"] = version
        if labels:
            self._json["labels"] = labels
        self._html = (
            f"<h3>Hello {xhtml_escape(name)}!</h3>"
            f"<b>Hostname:</b> {xhtml_escape(hostname)}<br/><b>Visits:</b> "
        )

    def as_html(self, number: int | None) -> str:
        """Return the page as HTML.

        :arg number: the visit's number; None when the visit got none.
        """
        return self._html + (f"<i>{UNCOUNTED}</i>" if number is None else str(number))

    def as_json(self, number: int | None) -> dict[str, object]:
        """Return the page as a JSON object.

        :arg number: the visit's number; None when the visit got none.
        """
        page = {**self._json, "visits": number}
        return page if number is not None else page | {"error": UNCOUNTED}


class HelloHandler(BaseHandler):
    """Greets, as HTML or JSON. Only GET counts a visit."""

    EAGER_START = True

    HEADERS: ClassVar[Mapping[str, str]] = {
        **BaseHandler.HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Vary": "Accept",
    }

    def initialize(self, greeting: Greeting, visits: Visits) -> None:
        """Take what the page shows.

        :arg greeting: all but the visit's number.
        :arg visits: counts the visit.
        """
        self.greeting = greeting
        self.visits = visits

    async def get(self) -> None:
        """Count the visit and show its number, or say that the counter is off."""
        number = await self.visits.count()
        if number is not None and self.client_has_gone:
            self.visits.give_back(number)  # the next visit gets it; nobody reads this answer
        if self._wants_json():
            self.finish_json(self.greeting.as_json(number))
        else:
            self.finish(self.greeting.as_html(number))

    async def head(self) -> None:
        """Answer GET's headers, without a length (RFC 9110, 8.6): it depends on the number."""
        if self._wants_json():
            self.set_header("Content-Type", "application/json")
        await self.flush()

    def _wants_json(self) -> bool:
        return prefers_json(self.request.headers.get("Accept", ""))
