"""The link to the Redis that counts: one connection, one request under way, on or off.

A request whose reply is lost is sent again over a new connection until its deadline, where Redis
knows its token. After any other failure the counter is off: visits are answered at once, while a
background task probes for Redis.
"""

import asyncio
import logging
import time
from typing import Literal

from redis.exceptions import ResponseError

from counter.connection import RedisConnection, Request
from counter.connector import Connector
from counter.delivery import Delivery
from counter.probing import is_cut, is_redirection
from counter.roles import Asker, Beside
from counter.spell import Spell
from counter.tokens import Numbers, SupersededError

#: Seconds between two times that a batch is sent again, at first and at most. The first time is
#: at once.
BACKOFF, MAX_BACKOFF = 0.001, 0.05

#: Seconds for which the loop does not sleep while a lone visit waits, where the last reply came
#: within them. To wake takes as long as a Redis nearby takes to reply: 9 % of the visit's time.
BUSY_POLL = 150e-6

log = logging.getLogger("friendlyhello.visits")


class Link:
    """Asks Redis for what waits, one request at a time.

    :arg connector: the way to Redis.
    :arg delivery: makes the requests, and reads their replies.
    :arg timeout: seconds that a visit may wait.
    :arg beside: says what goes beside the visits, if anything does.
    """

    asker: Asker
    """Whose visits are counted."""

    def __init__(
        self, connector: Connector, delivery: Delivery, *, timeout: float, beside: Beside | None
    ) -> None:
        self._connector = connector
        self._delivery = delivery
        self._timeout = timeout
        self._beside = beside
        self.is_off = False
        """Whether visits are not being counted."""
        self._spell: Spell | None = None  # without Redis, while off
        self._connection: RedisConnection | None = None
        self._moved = False  # another Redis is the primary than the one connected to
        self._request: Request | None = None  # the one under way
        self._deadline = 0.0  # of its first visit, on the loop's clock
        self._sent_at = 0.0
        self._is_held = False  # until Redis was looked for
        self._is_near = False  # Redis: it has just replied within `BUSY_POLL`
        self._backoff = 0.0
        self._connecting: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """Why visits are not being counted, without secrets; empty when they are."""
        return self._spell.reason if self._spell else ""

    # Sending: one request at a time, for all that wait.

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way, or a connection being opened."""
        return self._request is not None or self._connecting is not None or self._is_held

    def send(self, awake: bool = False) -> None:
        """Send what waits, once there is a sound connection and nothing is under way.

        :arg awake: whether the event loop is not to sleep until the reply, if that comes soon.
        """
        if not self.is_busy and not self.is_off:
            self._send()
            if awake:
                self._stay_awake(self._sent_at)

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
        """Keep the loop turning until what was sent then has its reply, if that comes soon."""
        is_waiting = self._sent_at == sent_at and self._request is not None
        if is_waiting and self._is_near and time.perf_counter() - sent_at < BUSY_POLL:
            asyncio.get_running_loop().call_soon(self._stay_awake, sent_at)

    def _reconnect(self) -> None:
        self._drop()
        if self._request is not None:
            self._request = self._request._replace(beside=())  # what was sent may have been run
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
            # Not only Redis's errors: whatever a server may send, a page is answered.
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
        else:  # it settled what was under way before
            self._send()

    def give_back(self, numbers: Numbers) -> None:
        """Leave numbers that a token got, and that nobody was shown, to the next visits."""
        self._delivery.tokens.give_back(numbers)

    # When something goes wrong.

    def _go_on_after(self, error: Exception) -> None:
        """Send what is under way again where that may help; else turn the counter off."""
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
        """Tell whether what is under way may be sent again, and another connection may do."""
        if isinstance(error, ResponseError):
            return is_redirection(error, self._connector)
        return is_cut(error) and (self._request is None or self._request.sequence > 0)

    def turn_off(self, error: Exception) -> None:
        """Count no more until Redis is found; a reply that still comes is for nobody."""
        reason = self._connector.reason(error)
        self.is_off = True
        if self._spell is None:
            self._spell = Spell(reason)
        self._spell.say(reason)
        self._end("timeout" if isinstance(error, TimeoutError) else "error")

    def _end(self, why: Literal["timeout", "error", "stopping"]) -> None:
        self._drop()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._request, self._is_held = None, False
        self._delivery.tokens.abandon()
        self.asker.uncounted(why)

    # Looking after the connection, which `counter.lookout` does.

    def hold(self) -> None:
        """Send nothing until turned on or off: a probe's token would settle that of a batch."""
        assert not self.is_busy
        self._is_held = True

    def turn_on(self, connection: RedisConnection) -> None:
        """Count over a connection from now on."""
        self.is_off, spell, self._spell = False, self._spell, None
        self._connection, self._backoff, self._is_held = connection, 0.0, False
        log.info("counter on")
        if spell and self._beside:
            self._beside.was_away(spell.start, time.monotonic(), spell.first_reason)
        self.send()

    def still_off(self, error: Exception) -> None:
        """Take note of what a search for Redis met."""
        if self._spell is not None and not isinstance(error, SupersededError):
            self._spell.say(self._connector.reason(error))

    def look_after(self, moved: bool) -> None:
        """While nothing is under way: replace an unsound connection, and settle.

        :arg moved: whether another Redis is the primary than the one connected to.
        """
        self._moved = moved and self._connection is not None
        if self.is_busy or self.is_off:
            return
        if self._is_unsound:
            self._reconnect()
        elif self._connection and self._delivery.exactly_once and not self._delivery.settled:
            # No visit comes to take what nobody was shown: it is for those at other replicas.
            self._request = self._delivery.request(0)
            self._deadline = asyncio.get_running_loop().time() + self._timeout
            self._send()

    def stop(self) -> None:
        """Count no more: whoever waits gets no number."""
        self.is_off = True
        self._end("stopping")

    @property
    def _is_unsound(self) -> bool:
        return self._connection is not None and (self._moved or not self._connection.is_sound)

    def _drop(self) -> None:
        connection, self._connection, self._moved = self._connection, None, False
        if connection is not None:
            connection.close()
