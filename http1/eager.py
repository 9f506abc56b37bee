"""Runs a coroutine without a Task; its first step runs at once."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from http1.tornado_internals import resume_when_done


class EagerTask:
    """Runs a coroutine, from one future that it awaits to the next. The first step runs at once.

    A Task would begin a turn of the loop later, and costs more. While the coroutine runs, there
    is no current task (`asyncio.current_task`), and nobody can cancel the coroutine.

    :arg begin: makes the coroutine, or raises.
    :arg on_end: called when the coroutine has ended, with its exception or None.
    """

    def __init__(
        self,
        begin: Callable[[], Coroutine[Any, Any, None]],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._begin, self._on_end = begin, on_end
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._context = contextvars.copy_context()
        self._context.run(self._step)

    def _step(self, awaited: "asyncio.Future[Any] | None" = None) -> None:
        try:
            if self._coroutine is None:
                self._coroutine = self._begin()
            future = self._coroutine.send(None)
        except StopIteration:
            self._on_end(None)
        except (Exception, asyncio.CancelledError) as error:
            self._on_end(error)
        else:
            resume_when_done(future, self._step, self._context)
