"""Sends answers together at the end of a turn of the event loop, if a turn has many answers."""

import asyncio
import functools

#: If the turns of the loop have `MANY` answers each, on average over about `TURNS` turns, the
#: answers of a turn leave together.
MANY, TURNS = 10, 16

#: Bytes of the largest answer that may wait for the turn's end. It never fills the buffer that a
#: connection has for its client.
SMALL = 1024


class Outbox:
    """Sends whole answers at once, or together at the end of the turn if there are many.

    The first answer of a turn wakes a waiting client process. Each later answer may wake it again,
    because a client nearby reads answers faster than the server makes them. Answers that leave
    together wake it once. If there are few answers, each leaves at once: its client would only wait
    for the end of the turn.

    :arg usual: the average number of answers in a turn, to begin with.
    """

    def __init__(self, usual: float = 0.0) -> None:
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._answers = 0  # of this turn
        self._usual = usual

    @functools.cached_property
    def taken(self) -> "asyncio.Future[None]":
        """What a write returns when more may be sent at once. All such writes share it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def send(self, client: asyncio.WriteTransport, answer: bytes) -> None:
        """Send a whole answer now, or at the end of this turn of the loop.

        :arg client: has no unsent bytes.
        :arg answer: at most `SMALL` bytes.
        """
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._answers += 1
        if self._usual < MANY:
            client.write(answer)
        else:
            self._waiting.append((client, answer))

    def _end_turn(self) -> None:
        self._usual += (self._answers - self._usual) / TURNS
        self._answers = 0
        self.flush()

    def flush(self) -> None:
        """Send the waiting answers. Call it before you send a client anything else, or close it."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for client, answer in waiting:
                if not client.is_closing():
                    client.write(answer)
