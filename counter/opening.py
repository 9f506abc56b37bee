"""Opens a connection to one of a host's addresses, and remembers the address.

A name may have several addresses. Some may hang, refuse, or belong to replicas. The look-up of the
name may fail while Redis is well. The name may lead to another Redis while the old one still runs.
"""

import asyncio
import contextlib
import functools
import logging
import math
import re
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError

from counter.addresses import certificate_name
from counter.race import first
from counter.redis_internals import NamedSSLConnection
from counter.resolver import resolve

#: Seconds between the attempts to connect to two addresses of a name. The time is the shortest that
#: https://www.rfc-editor.org/rfc/rfc8305#section-8 recommends, because Redis is near, and a visit
#: waits. A look-up has the same time before the opener also tries the last good address.
ATTEMPT_DELAY = 0.1

#: Seconds between two look-ups of a name in use, and how many look-ups in a row must lack the
#: address in use before the opener gives it up. Some DNS servers answer only a part of the
#: addresses each time.
LOOK_UP_EVERY, LOOK_UPS = 5.0, 2

#: What Redis says before any command, when it does not take the connection.
_NOT_TAKEN = re.compile(r"\bDENIED\b|max number of clients")

#: Options of tcp(7) that end a dead connection. TCP_USER_TIMEOUT counts, in milliseconds, from the
#: first time that the system repeats a packet that nobody acknowledges; this ends the connection
#: after 0.7 s in all. The keep-alive options, in seconds, end an idle connection. The system of a
#: Redis that hangs still acknowledges. So if nobody acknowledges, the address belongs to another
#: machine, or no packet gets through. A new connection may help, long before the visit's deadline.
DEAD_AFTER = {
    getattr(socket, name): value
    for name, value in (("TCP_USER_TIMEOUT", 300), ("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 1))
    if hasattr(socket, name)  # not every system has them
}

log = logging.getLogger("friendlyhello.visits")


class Opened(NamedTuple):
    """An open connection."""

    redis: Redis
    asking: bool = False
    """Whether the node serves the key only after ASKING: the slot is moving to the node."""


class _Found(NamedTuple):
    """A connection, and the address at its other end."""

    redis: Redis
    ip: str


class Opener:
    """Opens connections to hosts.

    :arg connection_class: a class of redis-py.
    :arg timeout: seconds that connecting may take after the name is looked up.
    :arg says_moves: whether to log that a name leads to another address.
    """

    def __init__(
        self, connection_class: type[AbstractConnection], timeout: float, says_moves: bool
    ) -> None:
        self._says_moves = says_moves
        self._class = connection_class
        self._timeout = timeout
        self._good: dict[str, str] = {}  # for each host, the address of its last connection
        self._comparing: asyncio.Task[list[str]] | None = None  # a look-up of the name in use
        self._compared_at = time.monotonic()
        self._missed = 0  # look-ups in a row without the address in use

    async def open(
        self, options: dict[str, Any], within: float = math.inf, *, to_primary: bool = False
    ) -> Redis:
        """Open a connection to the address of a host that answers a command first.

        An accepted connection is not enough: the system accepts connections for a server that
        hangs. When the look-up of the name takes long or fails, the opener also tries the last good
        address.

        :arg options: for redis-py's connection.
        :arg within: seconds that the caller waits, if fewer than connecting may take.
        :arg to_primary: whether to refuse an address whose Redis says that it is a replica.
        :raises OSError: when the name does not resolve, or no address accepts a connection.
        :raises RedisError: when Redis refuses.
        """
        host = options.get("host")
        if not host:
            async with asyncio.timeout(self._timeout):
                return await self._open_ip(options, None)
        look_up = asyncio.create_task(resolve(host))
        found = functools.partial(self._open_found, options, look_up, within, to_primary)
        try:
            good = self._good.get(host)
            await asyncio.wait([look_up], timeout=ATTEMPT_DELAY if good else None)
            if good and (not look_up.done() or look_up.exception()):
                known = functools.partial(self._open_answering, options, good, to_primary)
                opened = await first([found, known], discard=discard)
            else:
                opened = await found()
        finally:
            look_up.cancel()
        self._good[host] = opened.ip
        return opened.redis

    def has_moved(self, host: str) -> bool:
        """Tell whether a host's name no longer leads to the address of the last connection.

        The caller asks again and again. A call begins a look-up or reads its result, and never
        waits for it. There is one look-up every `LOOK_UP_EVERY` seconds. A look-up that fails
        says nothing about a move.
        """
        if self._comparing is None:
            if host in self._good and time.monotonic() >= self._compared_at + LOOK_UP_EVERY:
                self._comparing = asyncio.create_task(resolve(host))
            return False
        if not self._comparing.done():
            return False
        look_up, self._comparing = self._comparing, None
        self._compared_at = time.monotonic()
        if look_up.cancelled() or look_up.exception() or (good := self._good.get(host)) is None:
            return False
        self._missed = 0 if good in look_up.result() else self._missed + 1
        if self._missed < LOOK_UPS:
            return False
        self._missed = 0
        del self._good[host]
        if self._says_moves:
            log.warning("%s is no longer %s: moving to %s", host, good, " ".join(look_up.result()))
        return True

    async def _open_found(
        self,
        options: dict[str, Any],
        look_up: "asyncio.Task[list[str]]",
        within: float,
        to_primary: bool,
    ) -> _Found:
        ips = await look_up
        async with asyncio.timeout(self._timeout):
            if len(ips) == 1:
                return _Found(await self._open_ip(options, ips[0]), ips[0])
            # The last attempt keeps at least half of the time.
            delay = min(ATTEMPT_DELAY, min(self._timeout, within) / 2 / len(ips))
            ways = [functools.partial(self._open_answering, options, ip, to_primary) for ip in ips]
            return await first(ways, delay=delay, discard=discard)

    async def _open_answering(self, options: dict[str, Any], ip: str, to_primary: bool) -> _Found:
        async with asyncio.timeout(self._timeout):
            redis = await self._open_ip(options, ip)
            async with closed_on_error(redis):
                try:
                    await redis.ping()
                except ResponseError as error:  # an error is an answer, too
                    if _NOT_TAKEN.search(str(error)):
                        raise
                try:
                    is_replica = to_primary and await _role(redis) == b"slave"
                except ConnectionError:  # a proxy may hang up at a command that it does not know
                    await close(redis)
                    return _Found(await self._open_ip(options, ip), ip)
                if is_replica:
                    raise ReadOnlyError(f"{options['host']} ({ip}) is a replica")
            return _Found(redis, ip)

    async def _open_ip(self, options: dict[str, Any], ip: str | None) -> Redis:
        connection_class = self._class
        if ip is not None:
            if issubclass(connection_class, SSLConnection):
                connection_class = NamedSSLConnection
                options = options | {"server_name": certificate_name(options["host"])}
            options = options | {"host": ip, "socket_keepalive_options": DEAD_AFTER}
        pool = ConnectionPool(connection_class=connection_class, **options)
        redis = Redis(connection_pool=pool, single_connection_client=True)
        async with closed_on_error(redis):
            return await redis.initialize()


async def _role(redis: Redis) -> object:
    """Return the role that Redis tells (https://redis.io/commands/role); None if it tells none."""
    with contextlib.suppress(ResponseError):  # Redis does not allow or know the command
        role = await redis.execute_command("ROLE")
        if isinstance(role, list) and role:
            return role[0]
    return None


async def close(redis: Redis) -> None:
    """Close a connection without waiting: the other end may be hung."""
    if redis.connection is not None:
        await redis.connection.disconnect(nowait=True)
    await redis.aclose(close_connection_pool=True)


@contextlib.asynccontextmanager
async def closed_on_error(redis: Redis) -> AsyncIterator[None]:
    """Close a connection when the body of the ``with`` block fails."""
    try:
        yield
    except BaseException:
        await close(redis)
        raise


async def discard(opened: Opened | _Found) -> None:
    """Close a connection that nobody uses."""
    await close(opened.redis)
