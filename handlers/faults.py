"""``GET`` and ``PUT /faults``: what is wrong with this replica on purpose, told and set."""

import json
import logging
import mmap
import struct
from typing import NamedTuple

from config import Wait
from handlers.base import BaseHandler
from watch import FAULTS

log = logging.getLogger("friendlyhello")


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

    @classmethod
    def of_json(cls, text: bytes) -> "Faults":
        """Return what a JSON object says; what it leaves out is well.

        :raises ValueError: when it is none; says what is allowed.
        """
        allowed = ValueError(
            'allowed is a JSON object of "rate" (a number from 0 to 1), "wait" ("200ms" or '
            '"100ms-2s", up to 10s), "ready" and "alive" (true or false)'
        )
        try:
            fields = json.loads(text)
            faults = cls(**fields | {"wait": Wait.of(fields.get("wait", "0"))})
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise allowed from None
        is_share = type(faults.rate) in (int, float) and 0 <= faults.rate <= 1
        if not is_share or {type(faults.ready), type(faults.alive)} != {bool}:
            raise allowed
        return faults._replace(rate=float(faults.rate))

    def as_json(self) -> dict[str, object]:
        """Return the same as an object."""
        rate, wait, ready, alive = self
        return {"rate": rate, "wait": str(wait), "ready": ready, "alive": alive}

    @property
    def kinds(self) -> list[str]:
        """Those of `watch.metrics.FAULTS` that it is."""
        states = (self.rate > 0 or self.wait.most > 0, not self.ready, not self.alive)
        return [kind for kind, is_so in zip(FAULTS, states, strict=True) if is_so]


class SharedFaults:
    """What is wrong with this replica, in memory that all its processes share.

    :arg faults: what is wrong at first; to be made before there are worker processes.
    """

    _LAYOUT = struct.Struct("=dHH??")

    def __init__(self, faults: Faults) -> None:
        self._memory = mmap.mmap(-1, self._LAYOUT.size)
        self.set(faults)

    def get(self) -> Faults:
        """Return what is wrong now."""
        rate, least, most, ready, alive = self._LAYOUT.unpack_from(self._memory)
        return Faults(rate, Wait(least, most), ready, alive)

    def has(self, kind: str) -> bool:
        """Tell whether the replica is one of `watch.metrics.FAULTS`."""
        return kind in self.get().kinds

    def set(self, faults: Faults) -> None:
        """Change it, in all processes."""
        rate, wait, ready, alive = faults
        # Copied in one piece, so that the others never see what two of them set, mixed.
        self._memory[:] = self._LAYOUT.pack(rate, *wait, ready, alive)


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
