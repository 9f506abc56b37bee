"""``GET`` and ``PUT /faults``: what is wrong with this replica on purpose, told and set."""

import asyncio
import json
import logging
import mmap
import os
import struct
import time
from typing import NamedTuple

from config import Wait, duration, size, size_text
from handlers.base import BaseHandler
from process import Burden
from watch import FAULTS

#: Cores that can be burnt.
MOST_CORES = 64

log = logging.getLogger("friendlyhello")


ALLOWED = (
    'allowed is a JSON object of "rate" (a number from 0 to 1), "wait" ("200ms" or "100ms-2s", up '
    'to 10s), "ready" and "alive" (true or false), "cpu" (cores, a number from 0 to '
    f'{MOST_CORES}), "memory" ("64MiB", up to 64GiB), "exit" (a status from 0 to 255) and "for" '
    '("30s", up to an hour), after which all is well'
)


class Faults(NamedTuple):
    """What is wrong with a replica; by default nothing is."""

    rate: float = 0.0
    """The share of pages that are answered 503."""
    wait: Wait = Wait()
    """How long each page waits before that."""
    ready: bool = True
    """Whether ``/readyz`` says that it is."""
    alive: bool = True
    """Whether ``/healthz`` says that it is."""
    burden: Burden = Burden()
    """What is taken of the machine."""
    exit: int | None = None
    """The status with which the replica ends at once; None to go on."""
    until: float = 0.0
    """When all is well again, by `time.monotonic`; 0 for not by itself."""

    @classmethod
    def of_json(cls, text: bytes) -> "Faults":
        """Return what a JSON object says; what it leaves out is well.

        :raises ValueError: when it is none; says what is allowed.
        """
        try:
            fields = json.loads(text)
            until = time.monotonic() + duration(fields.pop("for")) if "for" in fields else 0.0
            burden = Burden(fields.pop("cpu", 0.0), size(fields.pop("memory", "0")))
            wait = Wait.of(fields.pop("wait", "0"))
            if fields.keys() - {"rate", "ready", "alive", "exit"} or None in fields.values():
                raise ValueError
            faults = cls(**fields, wait=wait, burden=burden, until=until)
            if not faults._is_allowed():
                raise ValueError
        except (ValueError, TypeError, AttributeError, RecursionError, KeyError):
            raise ValueError(ALLOWED) from None
        cpu = float(burden.cpu)
        return faults._replace(rate=float(faults.rate), burden=burden._replace(cpu=cpu))

    def _is_allowed(self) -> bool:
        """Tell whether the numbers and truths are such, and in their bounds."""
        bounds = [(self.rate, 1), (self.burden.cpu, MOST_CORES)]
        are_numbers = all(type(one) in (int, float) and 0 <= one <= most for one, most in bounds)
        is_status = self.exit is None or (type(self.exit) is int and 0 <= self.exit <= 255)
        return are_numbers and is_status and {type(self.ready), type(self.alive)} == {bool}

    def as_json(self) -> dict[str, object]:
        """Return the same as an object."""
        told: dict[str, object] = {
            "rate": self.rate,
            "wait": str(self.wait),
            "ready": self.ready,
            "alive": self.alive,
            "cpu": self.burden.cpu,
            "memory": size_text(self.burden.memory),
        }
        if self.exit is not None:
            told["exit"] = self.exit
        if self.until:
            told["for"] = f"{max(self.until - time.monotonic(), 0.0):.3f}s"
        return told

    @property
    def kinds(self) -> list[str]:
        """Those of `watch.metrics.FAULTS` that it is."""
        is_sick = self.rate > 0 or self.wait.most > 0
        burdens = (self.burden.cpu > 0, self.burden.memory > 0)
        states = (is_sick, not self.ready, not self.alive, *burdens)
        return [kind for kind, is_so in zip(FAULTS, states, strict=True) if is_so]


class SharedFaults:
    """What is wrong with this replica, in memory that all its processes share.

    :arg faults: what is wrong at first; to be made before there are worker processes.
    """

    _LAYOUT = struct.Struct("=dHH??dQhd")

    def __init__(self, faults: Faults) -> None:
        self._memory = mmap.mmap(-1, self._LAYOUT.size)
        self.set(faults)

    def get(self) -> Faults:
        """Return what is wrong now."""
        rate, least, most, ready, alive, cpu, memory, status, until = self._LAYOUT.unpack_from(
            self._memory
        )
        if until and time.monotonic() >= until:
            return Faults()
        burden = Burden(cpu, memory)
        wait = Wait(least, most)
        return Faults(rate, wait, ready, alive, burden, None if status < 0 else status, until)

    def has(self, kind: str) -> bool:
        """Tell whether the replica is one of `watch.metrics.FAULTS`."""
        return kind in self.get().kinds

    def set(self, faults: Faults) -> None:
        """Change it, in all processes."""
        rate, wait, ready, alive, burden, status, until = faults
        # Copied in one piece, so that the others never see what two of them set, mixed.
        self._memory[:] = self._LAYOUT.pack(
            rate, *wait, ready, alive, *burden, -1 if status is None else status, until
        )


class FaultsHandler(BaseHandler):
    """Tells and sets what is wrong.

    Pages of any site cannot: browsers send an ``Origin`` with their PUT, and no page of ours asks
    for this. A site whose name is made to lead here would pass any other check.
    """

    MAX_BODY_SIZE = 4096

    def initialize(self, faults: SharedFaults) -> None:
        """Take what is told and set."""
        self._faults = faults

    def prepare(self) -> None:
        """Refuse what a page in a browser asks for."""
        if "Origin" in self.request.headers:
            self.send_error(403, why="no page may ask for faults")

    def get(self) -> None:
        """Answer what is wrong."""
        self.finish_json(self._faults.get().as_json())

    head = get

    def put(self) -> None:
        """Replace it (RFC 9110, 9.3.4), and answer what it is now; 400 says what is allowed."""
        try:
            faults = Faults.of_json(self.request.body)
        except ValueError as error:
            self.send_error(400, why=str(error))
            return
        self._faults.set(faults)
        log.warning("faults: %s", json.dumps(faults.as_json()))
        self.get()
        if faults.exit is not None:  # the answer has been given to the system
            asyncio.get_running_loop().call_later(0.01, end_at_once, faults.exit)


def end_at_once(status: int) -> None:
    """End this process with a status, and nothing else: as if it had crashed."""
    logging.shutdown()  # the line that says why may not be written yet
    os._exit(status)
