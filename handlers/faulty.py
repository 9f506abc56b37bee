"""``GET /`` with ``--faults``: a late answer or an error, to test a platform with.

The client asks for them, by ``/?wait=250ms&status=503`` or by ``X-Fault-Rate`` and
``X-Fault-Wait``. Otherwise, the replica's faults decide (`handlers.faults`).
"""

import asyncio
import http
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from config import Wait, milliseconds, share
from counter import Visits
from handlers.faults import SharedFaults
from handlers.hello import Greeting, HelloHandler

Value = TypeVar("Value")

#: Statuses that a client may ask for. Statuses below 200 are not final (RFC 9110, 15.2).
STATUSES = frozenset(status.value for status in http.HTTPStatus if status >= 200)

#: Seconds between two checks that a waiting client is still there.
LOOK_EVERY = 0.25

#: Statuses whose answers have no content (RFC 9110, 15.3.5, 15.3.6 and 15.4.5).
EMPTY = (204, 205, 304)


class FaultyHelloHandler(HelloHandler):
    """Greets late, or answers an error.

    The query decides. Without a query, the headers decide. Without these, the replica's faults
    decide. A request that gets no greeting counts no visit.
    """

    EAGER_START = False  # an eager start does not call `prepare`

    def initialize(  # type: ignore[override]
        self, greeting: Greeting, visits: Visits, faults: SharedFaults
    ) -> None:
        """Take what the page shows, and the replica's faults."""
        super().initialize(greeting, visits)
        self._faults = faults.get()

    async def prepare(self) -> None:
        """Wait, and perhaps answer an error instead of the greeting; a bad request gets 400."""
        if self.request.method not in self.allowed_methods():
            return
        try:
            seconds, status = self._wait(), self._status()
        except ValueError as error:
            self.send_error(400, why=str(error))
            return
        if not await self._client_waits(seconds):
            self.send_error(400, why="the client has gone during the wait")
        elif status != 200:
            self.send_error(status)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error or another status; some statuses have no content."""
        if status_code in EMPTY:
            self.clear_header("Content-Type")
            self.finish()
        else:
            super().write_error(status_code, **kwargs)

    async def _client_waits(self, seconds: float) -> bool:
        """Wait, and tell whether the client is still there then."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.client_has_gone:  # noqa: ASYNC110
            await asyncio.sleep(min(left, LOOK_EVERY))
        return not self.client_has_gone

    def _wait(self) -> float:
        wait = self._header("X-Fault-Wait", Wait.of, self._faults.wait)
        text = self._asked("wait")
        if text is None:
            return random.uniform(*wait) / 1000
        try:
            return milliseconds(text) / 1000
        except ValueError as error:
            raise ValueError(f"wait is {error}") from None

    def _status(self) -> int:
        rate = self._header("X-Fault-Rate", share, self._faults.rate)
        text = self._asked("status")
        if text is None:
            return 503 if random.random() < rate else 200
        if not re.fullmatch("[0-9]{3}", text) or int(text) not in STATUSES:
            raise ValueError("status is an HTTP status from 200 on, such as 503")
        return int(text)

    def _header(self, name: str, read: Callable[[str], Value], otherwise: Value) -> Value:
        """Return a header's value, which holds for this request alone.

        :arg read: reads the value, or raises ValueError.
        :arg otherwise: the value when the header is not there.
        """
        text = self.request.headers.get(name)
        try:
            return otherwise if text is None else read(text)
        except ValueError as error:
            raise ValueError(f"{name} is {error}") from None

    def _asked(self, name: str) -> str | None:
        values = self.request.query_arguments.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise ValueError(f"{name} is given more than once")
        return values[0].decode("latin1")
