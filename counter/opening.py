"""Opens a connection to one of a host's addresses, and knows which one it was.

A name may have several addresses, of which some hang, refuse, or are of replicas; its look-up may
fail while Redis is well; and it may be pointed elsewhere while the old Redis lives on.
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

#: Seconds from the attempt to connect to one of a name's addresses to the next one, as little as
#: https://www.rfc-editor.org/rfc/rfc8305#section-8 recommends: Redis is near, and a visit waits.
#: Also those from a look-up to the attempt to connect to the last good address beside it.
ATTEMPT_DELAY = 0.1

#: Seconds between two look-ups of the name that is connected to, and how many in a row must not
#: have the address before it is given up: some servers tell a part of the addresses at a time.
LOOK_UP_EVERY, LOOK_UPS = 5.0, 2

#: What Redis says instead of taking a connection, before any command.
_NOT_TAKEN = re.compile(r"\bDENIED\b|max number of clients")

#: tcp(7): a connection ends by itself when what is sent on it is not acknowledged for so many
#: milliseconds from the first repetition on, which is 0.7 s in all; and when it is idle, and nobody
#: answers for so many seconds. The system of a Redis that hangs goes on acknowledging, so then its
#: address is another's, or no packet gets through any more: a new connection may do, and a visit
#: need not wait for its deadline to find out.
DEAD_AFTER = {
    getattr(socket, name): value
    for name, value in (("TCP_USER_TIMEOUT", 300), ("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 1))
    if hasattr(socket, name)  # not every system has them
}

log = logging.getLogger("friendlyhello.visits")


class Opened(NamedTuple):
    """A connection that has been opened."""

    redis: Redis
    asking: bool = False
    """Whether the node serves the key only to those who were sent to it, by ASKING."""


class _Found(NamedTuple):
    """A connection, and the address that it was opened to."""

    redis: Redis
    ip: str


class Opener:
    """Opens connections to hosts.

    :arg connection_class: of redis-py's.
    :arg timeout: seconds that connecting may take once the name is looked up.
    :arg says_moves: whether a name that leads elsewhere is worth a line in the log.
    """

    def __init__(
        self, connection_class: type[AbstractConnection], timeout: float, says_moves: bool
    ) -> None:
        self._says_moves = says_moves
        self._class = connection_class
        self._timeout = timeout
        self._good: dict[str, str] = {}  # host to the address that was connected to last
        self._comparing: asyncio.Task[list[str]] | None = None  # a look-up of the name in use
        self._compared_at = time.monotonic()
        self._missed = 0  # look-ups in a row without the address in use

    async def open(
        self, options: dict[str, Any], within: float = math.inf, *, to_primary: bool = False
    ) -> Redis:
        """Open a connection to whichever address of a host answers first.

        Not just whichever can be connected to: the system does that for a server that hangs.
        While the name is looked up for long, or cannot be, the last good address is tried, too.

        :arg options: of redis-py's connection.
        :arg within: seconds that the caller waits, if fewer than connecting may take.
        :arg to_primary: whether an address is passed over that is a replica's, where it says so.
        :raises OSError: when the name does not resolve, or no address can be connected to.
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
        """Tell whether a host's name no longer leads to the address that was connected to last.

        To be asked again and again, as nobody waits for the look-up, one every `LOOK_UP_EVERY`
        seconds. While the name cannot be looked up, nothing has moved.
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
            # The last attempt has at least half of the time.
            delay = min(ATTEMPT_DELAY, min(self._timeout, within) / 2 / len(ips))
            ways = [functools.partial(self._open_answering, options, ip, to_primary) for ip in ips]
            return await first(ways, delay=delay, discard=discard)

    async def _open_answering(self, options: dict[str, Any], ip: str, to_primary: bool) -> _Found:
        async with asyncio.timeout(self._timeout):
            redis = await self._open_ip(options, ip)
            async with closed_on_error(redis):
                try:
                    await redis.ping()
                except ResponseError as error:  # an answer, too
                    if _NOT_TAKEN.search(str(error)):
                        raise
                try:
                    is_replica = to_primary and await _role(redis) == b"slave"
                except ConnectionError:  # a proxy hangs up on a command that it does not know
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
    """Return what a Redis says that it is (https://redis.io/commands/role); None if nothing."""
    with contextlib.suppress(ResponseError):  # it is not allowed, or not known
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
    """Close a connection when what is done with it fails."""
    try:
        yield
    except BaseException:
        await close(redis)
        raise


async def discard(opened: Opened | _Found) -> None:
    """Close what is not used."""
    await close(opened.redis)
