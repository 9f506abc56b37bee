"""Event loops whose timers do not count the time that a busy machine keeps from the process.

For tests whose clients and servers share a loop, where a limit is a tenth of a second: if the
process does not run for as long, it is over before the loop has looked at its sockets once. Here
a delay passes in small parts, and the loop looks at its sockets after each.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import uvloop

#: Seconds of a part, so that a twentieth of a second has twenty of them; and the most that a delay
#: has, as an hour needs no more care than a minute.
PART, MOST = 0.0025, 500


class Timer:
    """What ``call_later`` returns: a delay in parts."""

    def __init__(self, loop: "Patient", delay: float, call: Callable[[], object]) -> None:
        self._loop = loop
        self._call = call
        self._due = loop.time()
        self._left = delay
        self._part = max(PART, delay / MOST)
        self._cancelled = False
        self._next()

    def _next(self) -> None:
        part = min(self._left, self._part)
        self._left -= part
        self._due = max(self._due + part, self._loop.time())  # what is late stays late
        self._handle = self._loop.call_once(self._due - self._loop.time(), self._on_part)

    def _on_part(self) -> None:
        if self._left > 0:
            self._next()
        else:
            self._call()

    def cancel(self) -> None:
        self._cancelled = True
        self._handle.cancel()

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._due + self._left


class Patient(asyncio.AbstractEventLoop):
    """A loop's timers, in parts."""

    def call_once(self, delay: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        """Call after a delay, as the loop itself would."""
        raise NotImplementedError

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Timer:
        context = context or contextvars.copy_context()
        return Timer(self, delay, lambda: context.run(callback, *args))

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Timer:
        return self.call_later(when - self.time(), callback, *args, context=context)


class OnAsyncio(Patient, asyncio.SelectorEventLoop):
    def call_once(self, delay: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.SelectorEventLoop.call_at(self, self.time() + delay, call)


class OnUvloop(Patient, uvloop.Loop):
    def call_once(self, delay: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        return uvloop.Loop.call_later(self, delay, call)


LOOPS: dict[str, type[Patient]] = {"asyncio": OnAsyncio, "uvloop": OnUvloop}
