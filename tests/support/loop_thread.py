"""An event loop in a thread of its own, for servers that a test drives from another one."""

import asyncio
import threading
from typing import Any

from tests.support.waiting import PATIENCE


class LoopThread:
    """Runs coroutines, each of which whoever asks for it waits for.

    :arg name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
