"""Answers leave together at the end of a turn of the event loop, where there are many in a turn."""

import asyncio

#: Answers in a turn of the loop, on average over some `TURNS`, from which on they leave together.
MANY, TURNS = 10, 16

#: Bytes of an answer that may wait, and so never fill what a connection keeps for its client.
SMALL = 1024


class Outbox:
    """Sends whole answers: at once, or together at the end of the turn where there are many.

    The first answer of a turn wakes a client that waits, and so may each of the others, as they
    come more slowly than a client nearby reads them. Together they wake it once: 1.10 times the
    pages with 64 connections, 1.18 times with 512. Where there are few they are sent at once: to
    wait for the end of the turn costs 8 connections an eighth of their pages.

    :arg usual: answers in a turn, to begin with.
    """

    def __init__(self, usual: float = 0.0) -> None:
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._answers = 0  # of this turn
        self._usual = usual

    def send(self, client: asyncio.WriteTransport, answer: bytes) -> None:
        """Send a whole answer in this turn of the loop, or at its end.

        :arg answer: not more than `SMALL`, to a client that has read all that was sent before.
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
        """Send what waits: before anything else is done to a client that it may be for."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for client, answer in waiting:
                if not client.is_closing():
                    client.write(answer)
