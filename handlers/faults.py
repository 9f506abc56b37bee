"""``GET /faults`` shows what is wrong with this replica on purpose; ``PUT /faults`` sets it."""

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

#: The most cores that a fault may keep busy.
MOST_CORES = 64

log = logging.getLogger("friendlyhello")


ALLOWED = (
    'allowed is a JSON object of "rate" (a number from 0 to 1), "wait" ("200ms" or "100ms-2s", up '
    'to 10s), "ready" and "alive" (true or false), "cpu" (cores, a number from 0 to '
    f'{MOST_CORES}), "memory" ("64MiB", up to 64GiB), "exit" (a status from 0 to 255) and "for" '
    '("30s", up to an hour), after which the faults end'
)


class Faults(NamedTuple):
    """What is wrong with a replica; by default, nothing."""

    rate: float = 0.0
    """The share of pages that the server answers with 503, from 0 to 1."""
    wait: Wait = Wait()
    """How long each page waits before its answer."""
    ready: bool = True
    """Whether ``/readyz`` says that the replica is ready."""
    alive: bool = True
    """Whether ``/healthz`` says that the replica is alive."""
    burden: Burden = Burden()
    """The CPU and memory that the replica takes on purpose."""
    exit: int | None = None
    """The status with which the replica exits at once; None to go on."""
    until: float = 0.0
    """When the faults end, by `time.monotonic`; 0 when they do not end by themselves."""

    @classmethod
    def of_json(cls, text: bytes) -> "Faults":
        """Return the faults that a JSON object sets; a field that it leaves out sets no fault.

        :raises ValueError: when the text is no such object; the message says what is allowed.
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
        """Tell whether each field has the right type and is within its bounds."""
        bounds = [(self.rate, 1), (self.burden.cpu, MOST_CORES)]
        are_numbers = all(type(one) in (int, float) and 0 <= one <= most for one, most in bounds)
        is_status = self.exit is None or (type(self.exit) is int and 0 <= self.exit <= 255)
        return are_numbers and is_status and {type(self.ready), type(self.alive)} == {bool}

    def as_json(self) -> dict[str, object]:
        """Return the faults as a JSON object."""
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
        """The `watch.metrics.FAULTS` that the replica has."""
        is_sick = self.rate > 0 or self.wait.most > 0
        burdens = (self.burden.cpu > 0, self.burden.memory > 0)
        states = (is_sick, not self.ready, not self.alive, *burdens)
        return [kind for kind, is_so in zip(FAULTS, states, strict=True) if is_so]


class SharedFaults:
    """The replica's faults, in memory that all its processes share.

    Make it before the worker processes start.

    :arg faults: the faults at first.
    """

    _LAYOUT = struct.Struct("=dHH??dQhd")

    def __init__(self, faults: Faults) -> None:
        self._memory = mmap.mmap(-1, self._LAYOUT.size)
        self.set(faults)

    def get(self) -> Faults:
        """Return the present faults."""
        rate, least, most, ready, alive, cpu, memory, status, until = self._LAYOUT.unpack_from(
            self._memory
        )
        if until and time.monotonic() >= until:
            return Faults()
        burden = Burden(cpu, memory)
        wait = Wait(least, most)
        return Faults(rate, wait, ready, alive, burden, None if status < 0 else status, until)

    def has(self, kind: str) -> bool:
        """Tell whether the replica has one of the `watch.metrics.FAULTS`."""
        return kind in self.get().kinds

    def set(self, faults: Faults) -> None:
        """Replace the faults, in all processes."""
        rate, wait, ready, alive, burden, status, until = faults
        # One copy, so that no process reads a mixture of the faults that two processes have set.
        self._memory[:] = self._LAYOUT.pack(
            rate, *wait, ready, alive, *burden, -1 if status is None else status, until
        )


class FaultsHandler(BaseHandler):
    """Shows and sets the faults.

    It refuses requests with an ``Origin``, which browsers send with every PUT: no web page may set
    faults, and no page of ours does. A hostile site whose name resolves to this server would pass
    any other check.
    """

    MAX_BODY_SIZE = 4096

    def initialize(self, faults: SharedFaults) -> None:
        """Take the faults to show and set."""
        self._faults = faults

    def prepare(self) -> None:
        """Refuse requests that a web page has sent."""
        if "Origin" in self.request.headers:
            self.send_error(403, why="a web page may not ask for faults")

    def get(self) -> None:
        """Answer with the present faults."""
        self.finish_json(self._faults.get().as_json())

    head = get

    def put(self) -> None:
        """Replace the faults (RFC 9110, 9.3.4) and answer with them; 400 says what is allowed."""
        try:
            faults = Faults.of_json(self.request.body)
        except ValueError as error:
            self.send_error(400, why=str(error))
            return
        self._faults.set(faults)
        log.warning("faults: %s", json.dumps(faults.as_json()))
        self.get()
        if faults.exit is not None:  # the system has the answer, and will send it
            asyncio.get_running_loop().call_later(0.01, end_at_once, faults.exit)


def end_at_once(status: int) -> None:
    """End this process with a status and without cleaning up, as a crash would.

    :arg status: the exit status.
    """
    logging.shutdown()  # writes the line that says why
    os._exit(status)
