"""Load that a replica puts on its machine on purpose: CPU, by processes of its own, and memory."""

import asyncio
import logging
import math
import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

#: Seconds between two looks at the wanted load.
LOOK_EVERY = 0.1

#: Bytes to write to in one turn of the event loop. This takes about 5 ms.
STEP = 8 * 1024 * 1024

log = logging.getLogger("friendlyhello.faults")


class Burden(NamedTuple):
    """How much load to put on the machine."""

    cpu: float = 0.0
    """Cores."""
    memory: int = 0
    """Bytes."""


class Burdened:
    """Puts the wanted load on the machine, as long as this process lives.

    :arg wanted: returns the load that is wanted now.
    """

    def __init__(self, wanted: Callable[[], Burden]) -> None:
        self._wanted = wanted
        self._taken = Burden()
        self._burning: list[subprocess.Popen[bytes]] = []
        self._memory: mmap.mmap | None = None

    async def follow(self) -> None:
        """Keep the load as it is wanted, until the task is cancelled.

        When this process ends, even by a kill, all load ends.
        """
        while True:
            if (wanted := self._wanted()) != self._taken:
                try:
                    await self._take(wanted)
                except OSError as error:
                    log.error("faults: cannot take %s: %s", wanted, error.strerror)
                self._taken = wanted
            await asyncio.sleep(LOOK_EVERY)

    async def _take(self, wanted: Burden) -> None:
        if wanted.cpu != self._taken.cpu:
            self._free_cpu()
            for core in range(math.ceil(wanted.cpu)):
                self._burn(min(wanted.cpu - core, 1.0))
        if wanted.memory != self._taken.memory:
            self._free_memory()
            await self._touch(wanted.memory)

    def _burn(self, share: float) -> None:
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("burn.py")), f"{share}"]
        # It ends when its standard input closes, so it ends even when this process is killed.
        self._burning.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    async def _touch(self, size: int) -> None:
        """Take memory, and write to each page, because the system gives a page at its first write.

        :arg size: in bytes.
        """
        if not size:
            return
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        written = b"\1" * STEP
        for start in range(0, size, STEP):
            part = min(STEP, size - start)
            self._memory[start : start + part] = written[:part]
            await asyncio.sleep(0)

    def _free_cpu(self) -> None:
        while self._burning:
            burning = self._burning.pop()
            burning.kill()
            burning.communicate()  # closes the pipe, and reaps the process

    def _free_memory(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None
