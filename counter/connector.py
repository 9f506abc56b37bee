"""The way to the Redis that counts: its own address, a Sentinel's primary, or a cluster's node.

The way is asked with redis-py's clients, retries off, of all at once, so that one that is dead
or hung costs nothing: of the sentinels the majority decides, in a cluster whoever first leads to
the node that serves the key.
"""

import asyncio
import functools
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, ReadOnlyError

from counter.addresses import Address, NoWayError, redirected, split, told
from counter.opening import Opened, Opener, close, closed_on_error, discard
from counter.race import cancel, first, first_to_end

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

#: Seconds after which connecting begins anew beside: what asked for a connection may have been lost
#: with a Redis that has just gone, and the system asks again after a second, and two more.
STUCK_AFTER = 0.4

#: Nodes of a cluster that are asked, one sending to the next.
MAX_NODES = 3

#: What Redis adds to an error that a command meets in a script: where.
_IN_SCRIPT = re.compile(r" script: \S* ?on @user_script:[0-9]+\.$")

#: Returns the password of the moment.
Password = Callable[[], str]


class Connector:
    """Opens connections to the Redis that a URL leads to.

    :arg url: ``redis://``, ``rediss://`` or ``unix:`` as redis-py reads it;
        ``redis+sentinel://host:26379,host2:26379/service/0``;
        ``redis+cluster://host:6379,host2:6379``; with ``rediss+`` over TLS.
    :arg key: what a cluster is asked the way to.
    :arg password: asked for at each connection, and used instead of the URL's own.
    :arg sentinel_password: the sentinels' own, likewise.
    :arg timeout: seconds that connecting may take once the name is looked up.
    :arg says_moves: whether to log that the name was pointed to another Redis.
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
        says_moves: bool = False,
    ) -> None:
        self._key = key
        self._password = password
        self._sentinel_password = sentinel_password
        self._kind, self._service, self._seeds, plain = split(url)
        pool = ConnectionPool.from_url(plain, **_OPTIONS)
        self._class = pool.connection_class
        self._opener = Opener(self._class, timeout, says_moves)
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
        """Do what `try_once` does; while that is stuck, try again beside it."""
        return await first_to_end(self.try_once, every=STUCK_AFTER, discard=discard)

    async def try_once(self) -> Opened:
        """Open a connection, on which no command has been sent that changes anything.

        :raises RedisError: when Redis refuses.
        :raises OSError: when it cannot be reached, TimeoutError included.
        """
        if self._kind == "sentinel":
            return Opened(await self._connect_to_primary())
        if self._kind == "cluster":
            ways = [functools.partial(self._follow, node) for node in self._seeds]
            return await first(ways, discard=discard)
        return Opened(await self._open(self._options, self._password, to_primary=True))

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
        """Tell whether there is another Redis to connect to than the one connected to.

        The sentinels name another primary: one that hangs, or that a broken network has cut off
        from them alone, would not be noticed otherwise. Or the name was pointed to another Redis,
        and the old one lives on. In a cluster the connection itself tells.
        """
        host = self._options.get("host")
        if not self._kind and host:
            return self._opener.has_moved(host)
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
        self,
        options: dict[str, Any],
        password: Password | None,
        within: float = math.inf,
        *,
        to_primary: bool = False,
    ) -> Redis:
        """Open a connection; see `counter.opening.Opener.open`.

        :arg password: asked for now; the options' own when None.
        """
        if password is not None:
            options = options | {"password": password()}
            self._secrets.add(options["password"])
        return await self._opener.open(options, within, to_primary=to_primary)

    def _check_certificates(self) -> None:
        if not issubclass(self._class, SSLConnection):
            return
        try:
            self._class(**self._options).ssl_context.get()
        except OSError as error:  # it does not say which file
            names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
            files = ", ".join(f"{n}={self._options[n]}" for n in names if n in self._options)
            raise OSError(f"cannot use {files}: {error.strerror or error}") from None
