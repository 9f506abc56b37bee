"""The way to the Redis that counts: its own address, a Sentinel's primary, or a cluster's node.

The way is asked with redis-py's clients, retries off, of all at once, so that one that is dead
or hung costs nothing: of the sentinels the majority decides, in a cluster whoever first leads to
the node that serves the key.
"""

import asyncio
import contextlib
import functools
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, ReadOnlyError, ResponseError

from counter.addresses import Address, NoWayError, certificate_name, redirected, split, told
from counter.race import cancel, first
from counter.redis_internals import NamedSSLConnection
from counter.resolver import resolve

_OPTIONS = {
    # redis-py would retry each command ten times, on timeouts too: a visit would count again.
    # Its own timeouts are off because the caller keeps the deadline.
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": None,
    # RESP2 and no driver info: connecting takes no command but AUTH and SELECT.
    "protocol": 2,
    "driver_info": None,
}

#: Seconds in which a sentinel answers; one that hangs is waited for only where it decides.
SENTINEL_TIMEOUT = 0.5

#: Nodes of a cluster that are asked, one sending to the next.
MAX_NODES = 3

#: Seconds from the attempt to connect to one of a name's addresses to the next one, as little as
#: https://www.rfc-editor.org/rfc/rfc8305#section-8 recommends: Redis is near, and a visit waits.
ATTEMPT_DELAY = 0.1

#: What Redis adds to an error that a command meets in a script: where.
_IN_SCRIPT = re.compile(r" script: \S* ?on @user_script:[0-9]+\.$")

#: Returns the password of the moment.
Password = Callable[[], str]


class Opened(NamedTuple):
    """A connection that has been opened."""

    redis: Redis
    asking: bool = False
    """Whether the node serves the key only to those who were sent to it, by ASKING."""


class Connector:
    """Opens connections to the Redis that a URL leads to.

    :arg url: ``redis://``, ``rediss://`` or ``unix:`` as redis-py reads it;
        ``redis+sentinel://host:26379,host2:26379/service/0``;
        ``redis+cluster://host:6379,host2:6379``; with ``rediss+`` over TLS.
    :arg key: what a cluster is asked the way to.
    :arg password: asked for at each connection, and used instead of the URL's own.
    :arg sentinel_password: the sentinels' own, likewise.
    :arg timeout: seconds that connecting may take once the name is looked up.
    :raises ValueError: when the URL cannot be read.
    :raises OSError: when a certificate that the URL names cannot be loaded.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str,
        password: Password | None = None,
        sentinel_password: Password | None = None,
        timeout: float,
    ) -> None:
        self._key = key
        self._password = password
        self._sentinel_password = sentinel_password
        self._timeout = timeout
        self._kind, self._service, self._seeds, plain = split(url)
        pool = ConnectionPool.from_url(plain, **_OPTIONS)
        self._class = pool.connection_class
        self._options = pool.connection_kwargs
        if "path" in self._options:  # any bytes (PEP 383), which redis-py reads as UTF-8
            self._options["path"] = unquote(urlsplit(plain).path, errors="surrogateescape")
        self._sentinel_options = self._options | {"username": None, "password": None, "db": 0}
        self._secrets = {self._options.get("password") or ""}
        self._primary: Address | None = None
        self._check_certificates()

    @property
    def in_cluster(self) -> bool:
        """Whether a node may say that another one serves the key."""
        return self._kind == "cluster"

    async def connect(self) -> Opened:
        """Open a connection, on which no command has been sent that changes anything.

        :raises RedisError: when Redis refuses.
        :raises OSError: when it cannot be reached, TimeoutError included.
        """
        if self._kind == "sentinel":
            return Opened(await self._connect_to_primary())
        if self._kind == "cluster":
            ways = [functools.partial(self._follow, node) for node in self._seeds]
            return await first(ways, discard=_discard)
        return Opened(await self._open(self._options, self._password))

    def reason(self, error: Exception) -> str:
        """Return why there is no way to Redis or no answer from it, in one text without secrets.

        A Redis that does not know AUTH repeats its words, of which one is the password.
        """
        if isinstance(error, TimeoutError):
            return "no answer from Redis in time"
        text = _IN_SCRIPT.sub("", str(error)) or type(error).__name__
        for secret in filter(None, self._secrets):
            text = text.replace(secret, "***")
        return text

    async def has_moved(self) -> bool:
        """Tell whether the sentinels name another primary than the one connected to.

        A primary that hangs, or that a broken network has cut off from them alone, would not
        be noticed otherwise. In a cluster, and without either, the connection itself tells.
        """
        if self._primary is None:
            return False
        try:
            return await self._primary_by_vote() != self._primary
        except Exception:  # whatever a server may send, counting goes on
            return False

    async def _connect_to_primary(self) -> Redis:
        address = await self._primary_by_vote()
        redis = await self._open_at(address)
        async with closed_on_error(redis):
            # https://redis.io/docs/latest/develop/reference/sentinel-clients/, step 3
            role = await redis.execute_command("ROLE")
            if not isinstance(role, list) or role[:1] != [b"master"]:
                raise ReadOnlyError(f"{address[0]}:{address[1]} is no primary")
        self._primary = address
        return redis

    async def _primary_by_vote(self) -> Address:
        """Return the primary that most sentinels name.

        Not the first answer: while a failover is on its way, and where the network is split,
        they may differ, and what the minority's primary counts is lost.
        """
        tasks = [asyncio.create_task(self._ask_sentinel(seed)) for seed in self._seeds]
        votes: Counter[Address] = Counter()
        error: Exception = TimeoutError()
        try:
            for task in asyncio.as_completed(tasks, timeout=SENTINEL_TIMEOUT):
                try:
                    votes[await task] += 1
                except Exception as failure:
                    error = failure
                if votes and votes.most_common(1)[0][1] * 2 > len(tasks):
                    break
        finally:
            await cancel(tasks)
        match votes.most_common(2):
            case []:
                raise error
            case [(_, most), (_, other)] if most == other:
                raise NoWayError("the sentinels disagree on the primary")
            case [(address, _), *_]:
                return address
        raise AssertionError

    async def _ask_sentinel(self, seed: Address) -> Address:
        options = self._sentinel_options | {"host": seed[0], "port": seed[1]}
        sentinel = await self._open(options, self._sentinel_password, SENTINEL_TIMEOUT)
        try:
            # Of a failover it tells as soon as the new primary is one.
            address = await sentinel.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service
            )
        finally:
            await close(sentinel)
        if address is None:
            raise NoWayError(f"the sentinels know no {self._service}")
        return told(address, by=seed)

    async def _follow(self, node: Address) -> Opened:
        for _ in range(MAX_NODES):
            try:
                return Opened(await self._open_cluster_node(node))
            except AskError as error:
                redirection = error
            node = redirected(redirection, by=node)
            if not isinstance(redirection, MovedError):
                # The slot is on its move, and the key has gone ahead.
                return Opened(await self._open_at(node), asking=True)
        raise NoWayError("the nodes of the cluster send from one to the other")

    async def _open_cluster_node(self, address: Address) -> Redis:
        redis = await self._open_at(address)
        async with closed_on_error(redis):
            try:
                await redis.exists(self._key)
            except ValueError:  # redis-py's own, when it reads the redirection
                raise NoWayError(f"{address[0]}:{address[1]} sends on to no address") from None
        return redis

    async def _open_at(self, address: Address) -> Redis:
        options = self._options | {"host": address[0], "port": address[1]}
        return await self._open(options, self._password)

    async def _open(
        self, options: dict[str, Any], password: Password | None, within: float = math.inf
    ) -> Redis:
        """Open a connection to whichever address of a host answers first.

        Not just whichever can be connected to: the system does that for a server that hangs.

        :arg options: of redis-py's connection.
        :arg password: asked for now; the options' own when None.
        :arg within: seconds that the caller waits, if fewer than connecting may take.
        """
        if password is not None:
            options = options | {"password": password()}
            self._secrets.add(options["password"])
        host = options.get("host")
        ips = await resolve(host) if host else [None]
        async with asyncio.timeout(self._timeout):
            if len(ips) == 1:
                return await self._open_ip(options, ips[0])
            # The last attempt has at least half of the time.
            delay = min(ATTEMPT_DELAY, min(self._timeout, within) / 2 / len(ips))
            ways = [functools.partial(self._open_answering, options, ip) for ip in ips]
            return (await first(ways, delay=delay, discard=_discard)).redis

    async def _open_answering(self, options: dict[str, Any], ip: str | None) -> Opened:
        redis = await self._open_ip(options, ip)
        async with closed_on_error(redis):
            with contextlib.suppress(ResponseError):  # an answer, too
                await redis.ping()
        return Opened(redis)

    async def _open_ip(self, options: dict[str, Any], ip: str | None) -> Redis:
        connection_class = self._class
        if ip is not None:
            if issubclass(connection_class, SSLConnection):
                connection_class = NamedSSLConnection
                options = options | {"server_name": certificate_name(options["host"])}
            options = options | {"host": ip}
        pool = ConnectionPool(connection_class=connection_class, **options)
        redis = Redis(connection_pool=pool, single_connection_client=True)
        async with closed_on_error(redis):
            return await redis.initialize()

    def _check_certificates(self) -> None:
        if not issubclass(self._class, SSLConnection):
            return
        try:
            self._class(**self._options).ssl_context.get()
        except OSError as error:  # it does not say which file
            names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
            files = ", ".join(f"{n}={self._options[n]}" for n in names if n in self._options)
            raise OSError(f"cannot use {files}: {error.strerror or error}") from None


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


async def _discard(opened: Opened) -> None:
    await close(opened.redis)
