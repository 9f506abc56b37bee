"""Event loops for whose clock the process always runs, however busy the machine is.

For tests whose clients and servers share a loop, where a limit is a tenth of a second: if the
process does not run for as long, it is over before the loop has looked at its sockets once. This
clock goes on by a small tick at the most, and the loop looks at its sockets before each.
"""

import asyncio
import heapq
import socket
import time
from collections.abc import Callable
from typing import Any

import uvloop
from tornado.ioloop import IOLoop

#: Seconds of a tick, of which a twentieth of a second has twenty.
TICK = 0.0025


class Patient(asyncio.AbstractEventLoop):
    """A loop with a clock and timers of its own."""

    def __init__(self) -> None:
        self._now = self._ticked_at = time.monotonic()
        self._timers: list[asyncio.TimerHandle] = []
        super().__init__()
        self.after_tick(self._tick)

    def after_tick(self, call: Callable[[], object]) -> None:
        """Call after a tick of the machine's clock, as the loop itself would."""
        raise NotImplementedError

    def time(self) -> float:
        return self._now + min(time.monotonic() - self._ticked_at, TICK)

    def call_later(self, delay: float, *call: Any, **context: Any) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, *call, **context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it among the timers."""

    def _tick(self) -> None:
        self._now, self._ticked_at = self.time(), time.monotonic()
        while self._timers and self._timers[0].when() <= self._now:
            self.call_soon(_run, heapq.heappop(self._timers))
        self.after_tick(self._tick)

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
        return socket.getaddrinfo(host, port, **options)  # not in a thread, which may have to wait


def _run(timer: asyncio.TimerHandle) -> None:
    if not timer.cancelled():
        timer._run()


class OnAsyncio(Patient, asyncio.SelectorEventLoop):
    def after_tick(self, call: Callable[[], object]) -> None:
        asyncio.SelectorEventLoop.call_at(self, self._now + TICK, call)


class OnUvloop(Patient, uvloop.Loop):
    def after_tick(self, call: Callable[[], object]) -> None:
        uvloop.Loop.call_later(self, TICK, call)


LOOPS: dict[str, type[Patient]] = {"asyncio": OnAsyncio, "uvloop": OnUvloop}


def time_of(io_loop: IOLoop) -> float:
    """Return the time, in place of ``IOLoop.time``, which asks the machine's clock."""
    return float(io_loop.asyncio_loop.time())  # type: ignore[attr-defined]
