"""The link to the Redis that counts: one connection, one request under way, on or off.

When the reply to a request with a token is lost, the link sends the request again over a new
connection, until its deadline. After any other failure the counter is off: visits get an answer at
once, without a number, while a background task looks for Redis.
"""

import asyncio
import logging
import time
from typing import Literal

from redis.exceptions import ResponseError

from counter.connection import RedisConnection, Request
from counter.connector import Connector
from counter.delivery import Delivery
from counter.outage import Outage
from counter.probing import is_cut, is_redirection
from counter.roles import Asker, Beside
from counter.tokens import Numbers, SupersededError

#: Seconds between two attempts to send a batch again: the shortest and the longest pause. The
#: first attempt has no pause.
BACKOFF, MAX_BACKOFF = 0.001, 0.05

#: Seconds for which the loop stays awake while a lone visit waits, if the last reply came within
#: this time. To wake takes as long as a nearby Redis takes to reply.
BUSY_POLL = 150e-6

log = logging.getLogger("friendlyhello.visits")


class Link:
    """Asks Redis for the numbers of the visits that wait, one request at a time.

    :arg connector: the way to Redis.
    :arg delivery: makes the requests, and reads their replies.
    :arg timeout: seconds that a visit may wait.
    :arg beside: gives the commands that go beside the visits, if there are any.
    """

    asker: Asker
    """Gives the visits, and gets their numbers."""

    def __init__(
        self, connector: Connector, delivery: Delivery, *, timeout: float, beside: Beside | None
    ) -> None:
        self._connector = connector
        self._delivery = delivery
        self._timeout = timeout
        self._beside = beside
        self.is_off = False
        """Whether visits are not being counted."""
        self._outage: Outage | None = None  # the present one, while off
        self._connection: RedisConnection | None = None
        self._moved = False  # the way now leads to another Redis than this connection
        self._request: Request | None = None  # the request under way
        self._deadline = 0.0  # of its first visit, on the loop's clock
        self._sent_at = 0.0
        self._is_held = False  # sends nothing, until the first search for Redis has ended
        self._is_near = False  # Redis has just replied within `BUSY_POLL`
        self._backoff = 0.0
        self._connecting: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """Why visits are not being counted, without secrets; empty when they are."""
        return self._outage.reason if self._outage else ""

    # Sending: one request at a time, for all visits that wait.

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way, a connection is being opened, or the link is held."""
        return self._request is not None or self._connecting is not None or self._is_held

    def send(self, awake: bool = False) -> None:
        """Send the visits that wait. While a request is under way, do nothing.

        :arg awake: whether the event loop stays awake for a while, until the reply comes.
        """
        if not self.is_busy and not self.is_off:
            self._send()
            if awake and self._is_near:
                asyncio.get_running_loop().call_soon(self._stay_awake, self._sent_at)

    def _send(self) -> None:
        connection, request = self._connection, self._request
        if connection is None or self._is_unsound:
            self._reconnect()
            return
        if request is None:
            visits, self._deadline = self.asker.take()
            if not visits:
                return
            request = self._request = self._with_beside(self._delivery.request(visits))
        self._sent_at = time.perf_counter()  # the loop's own clock is too coarse
        connection.send(self._delivery.waiting(request, self._deadline), self._on_replies)

    def _with_beside(self, request: Request) -> Request:
        if self._beside is None:
            return request
        tokens, scripts = self._delivery.tokens, request.sequence > 0
        beside = self._beside.commands(tokens.key, tokens.shown, request.visits, scripts)
        return request._replace(beside=beside) if beside else request

    def _stay_awake(self, sent_at: float) -> None:
        """Keep the loop turning until the reply to this request, for `BUSY_POLL` at most."""
        is_waiting = self._sent_at == sent_at and self._request is not None
        if is_waiting and time.perf_counter() - sent_at < BUSY_POLL:
            asyncio.get_running_loop().call_soon(self._stay_awake, sent_at)

    def _reconnect(self) -> None:
        self._drop()
        if self._request is not None:
            self._request = self._request._replace(beside=())  # Redis may have run them
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            if self._backoff:
                await asyncio.sleep(self._backoff)
            self._backoff = min(2 * self._backoff or BACKOFF, MAX_BACKOFF)
            async with asyncio.timeout(self._timeout):
                self._connection = RedisConnection(*await self._connector.connect())
            self._connecting = None
            self._send()
        except Exception as error:
            self._connecting = None
            # Catch any error, not only Redis's own: whatever Redis sends, the page needs an answer.
            self._go_on_after(error)

    def _on_replies(self, replies: list[bytes] | Exception) -> None:
        request = self._request
        assert request is not None
        try:
            if isinstance(replies, Exception):
                raise replies
            numbers = self._delivery.numbers(replies, request)
        except Exception as error:
            self._go_on_after(error)
            return
        self._request, self._backoff = None, 0.0
        if self._beside and self._connection and (why := self._connection.refused):
            self._connection.refused = ""
            self._beside.refused(why)
        seconds = time.perf_counter() - self._sent_at
        self._is_near = seconds < BUSY_POLL
        if request.visits:
            self.asker.counted(numbers, seconds, request.sequence > 0)
        else:  # the request was only to settle older tokens
            self._send()

    def give_back(self, numbers: Numbers) -> None:
        """Give numbers of a token back, because they were not shown. The next visits get them."""
        self._delivery.tokens.give_back(numbers)

    # When something goes wrong.

    def _go_on_after(self, error: Exception) -> None:
        """Send the request under way again, if that may help; else turn the counter off."""
        request = self._request
        if request is None and not self.asker.are_waiting:
            self.turn_off(error)
        elif request is not None and self._delivery.refused(error, request):
            self._request = self._with_beside(self._delivery.request(request.visits))
            self._send()
        elif self._may_do_elsewhere(error):
            self._reconnect()
        else:
            self.turn_off(error)

    def _may_do_elsewhere(self, error: Exception) -> bool:
        """Tell whether the request may be sent again, and another connection may help."""
        if isinstance(error, ResponseError):
            return is_redirection(error, self._connector)
        return is_cut(error) and (self._request is None or self._request.sequence > 0)

    def turn_off(self, error: Exception) -> None:
        """Count no more until the lookout finds Redis. Ignore replies that still come."""
        reason = self._connector.reason(error)
        self.is_off = True
        if self._outage is None:  # else a visit has begun it, while the first search went on
            self._outage = Outage(reason)
        self._outage.say(reason)
        self._end("timeout" if isinstance(error, TimeoutError) else "error")

    def _end(self, why: Literal["timeout", "error", "stopping"]) -> None:
        self._drop()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._request, self._is_held = None, False
        self._delivery.tokens.abandon()
        self.asker.uncounted(why)

    # `counter.lookout` calls these. It looks after the connection.

    def hold(self) -> None:
        """Send nothing until turned on or off. Otherwise a probe makes a batch's numbers spare."""
        assert not self.is_busy
        self._is_held = True

    def turn_on(self, connection: RedisConnection) -> None:
        """Count over this connection from now on."""
        self.is_off, outage, self._outage = False, self._outage, None
        self._connection, self._backoff, self._is_held = connection, 0.0, False
        log.info("counter on")
        if outage and self._beside:
            self._beside.was_away(outage.start, time.monotonic(), outage.first_reason)
        self.send()

    def still_off(self, error: Exception) -> None:
        """Note the error that a search for Redis met."""
        if self._outage is not None and not isinstance(error, SupersededError):
            self._outage.say(self._connector.reason(error))

    def look_after(self, moved: bool) -> None:
        """Replace an unsound connection, or give numbers back. While busy or off, do neither.

        :arg moved: whether the way now leads to another Redis than the connection.
        """
        # By ASKING, no figures go beside the visits. So look again where the slot is.
        self._moved = self._connection is not None and (moved or self._connection.is_asking)
        if self.is_busy or self.is_off:
            return
        if self._is_unsound:
            self._reconnect()
        elif self._connection and self._delivery.exactly_once and not self._delivery.settled:
            # No visit comes here to take the numbers, so visits at other replicas may get them.
            self._request = self._delivery.request(0)
            self._deadline = asyncio.get_running_loop().time() + self._timeout
            self._send()

    def stop(self) -> None:
        """Count no more. Visits that wait get no number."""
        self.is_off = True
        self._end("stopping")

    @property
    def _is_unsound(self) -> bool:
        return self._connection is not None and (self._moved or not self._connection.is_sound)

    def _drop(self) -> None:
        connection, self._connection, self._moved = self._connection, None, False
        if connection is not None:
            connection.close()
