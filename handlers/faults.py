"""``GET /?wait=250ms&status=503``: faults on demand, for whoever tests a platform."""

import asyncio
import contextlib
import http
import re
from typing import Any

from counter import Visits
from handlers.hello import Greeting, HelloHandler

#: What can be forced; those below are no final answers (RFC 9110, 15.2).
STATUSES = frozenset(status.value for status in http.HTTPStatus if status >= 200)

#: Those without content (RFC 9110, 15.3.5, 15.3.6 and 15.4.5).
EMPTY = (204, 205, 304)

#: How long an answer can be made to wait: up to 10 seconds.
_WAIT = re.compile(r"(?P<ms>[0-9]{1,4}|10000)ms|(?P<s>[0-9](\.[0-9]{1,3})?|10)s")


class FaultyHelloHandler(HelloHandler):
    """Greets late, or not at all, when the query says so; what is not greeted is not counted."""

    EAGER_START = False  # it may wait, with a timeout

    def initialize(self, greeting: Greeting, visits: Visits) -> None:
        """Take what the page shows."""
        super().initialize(greeting, visits)
        self._gone = asyncio.Event()

    def on_connection_close(self) -> None:
        """Wait no longer: the client has gone."""
        self._gone.set()

    async def prepare(self) -> None:
        """Do what the query says before the greeting; what it gets wrong is 400."""
        if self.request.method not in self.allowed_methods():
            return
        try:
            seconds, status = self._wait(), self._status()
        except ValueError as error:
            self.send_error(400, why=str(error))
            return
        if not await self._client_waits(seconds):
            self.send_error(400, why="the client closed its side while it was to wait")
        elif status != 200:
            self.send_error(status)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error, or another forced status, which may have no content."""
        if status_code in EMPTY:
            self.clear_header("Content-Type")
            self.finish()
        else:
            super().write_error(status_code, **kwargs)

    async def _client_waits(self, seconds: float) -> bool:
        """Wait, and tell whether the client did so, too."""
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._gone.wait()
        return not self._gone.is_set()

    def _wait(self) -> float:
        match = _WAIT.fullmatch(self._asked("wait", "0s"))
        if match is None:
            raise ValueError("wait is up to 10s, as in 250ms or 1.5s")
        return float(match["s"] or int(match["ms"]) / 1000)

    def _status(self) -> int:
        text = self._asked("status", "200")
        if not re.fullmatch("[0-9]{3}", text) or int(text) not in STATUSES:
            raise ValueError("status is one of HTTP's, from 200 on, as in 503")
        return int(text)

    def _asked(self, name: str, default: str) -> str:
        values = self.request.query_arguments.get(name, [default.encode()])
        if len(values) > 1:
            raise ValueError(f"{name} is given more than once")
        return values[0].decode("latin1")
