"""The way to the Redis that counts: its own address, a Sentinel's primary, or a cluster's node.

The connector asks all sentinels, or all nodes of the cluster, together. So one that is dead or
hangs costs no time. The majority of the sentinels decides. In a cluster, the first answer that
leads to the node of the key decides. The clients are redis-py's, without retries.
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
    # redis-py would retry each command ten times, after timeouts too, and count a visit again.
    # The caller keeps the deadline, so redis-py's own timeouts are off.
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": None,
    # With RESP2 and no driver info, redis-py sends no command to connect but AUTH and SELECT.
    "protocol": 2,
    "driver_info": None,
}

#: Seconds that a sentinel may take to answer. The connector waits for a sentinel that hangs only
#: when the others have no majority.
SENTINEL_TIMEOUT = 0.5

#: Seconds after which the connector begins another connection beside one that is stuck. If Redis
#: has just gone, the first packet is lost. The system repeats the packet after one second, and
#: again two seconds later.
STUCK_AFTER = 0.4

#: How many nodes of a cluster the connector asks, when each redirects to the next.
MAX_NODES = 3

#: Redis adds this to the error of a command in a script. It says where the error was.
_IN_SCRIPT = re.compile(r" script: \S* ?on @user_script:[0-9]+\.$")

#: Returns the present password.
Password = Callable[[], str]


class Connector:
    """Opens connections to the Redis that a URL leads to.

    :arg url: ``redis://``, ``rediss://`` or ``unix:`` as redis-py reads it;
        ``redis+sentinel://host:26379,host2:26379/service/0``;
        ``redis+cluster://host:6379,host2:6379``; with ``rediss+`` over TLS.
    :arg key: the key whose node the connector looks for in a cluster.
    :arg password: is called for each connection; its result replaces the password in the URL.
    :arg sentinel_password: the same for the sentinels.
    :arg timeout: seconds that connecting may take after the name is looked up.
    :arg says_moves: whether to log that the name leads to another Redis.
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
        if "path" in self._options:  # it may be any bytes (PEP 383); redis-py expects UTF-8
            self._options["path"] = unquote(urlsplit(plain).path, errors="surrogateescape")
        self._sentinel_options = self._options | {"username": None, "password": None, "db": 0}
        self._secrets = {self._options.get("password") or ""}
        self._primary: Address | None = None
        self._check_certificates()

    @property
    def in_cluster(self) -> bool:
        """Whether a node may say that another node serves the key."""
        return self._kind == "cluster"

    async def connect(self) -> Opened:
        """Open a connection as `try_once` does; while an attempt is stuck, try again beside it."""
        return await first_to_end(self.try_once, every=STUCK_AFTER, discard=discard)

    async def try_once(self) -> Opened:
        """Open a connection. This changes nothing in Redis.

        :raises RedisError: when Redis refuses.
        :raises OSError: when Redis cannot be reached, TimeoutError included.
        """
        if self._kind == "sentinel":
            return Opened(await self._connect_to_primary())
        if self._kind == "cluster":
            ways = [functools.partial(self._follow, node) for node in self._seeds]
            return await first(ways, discard=discard)
        return Opened(await self._open(self._options, self._password, to_primary=True))

    def reason(self, error: Exception) -> str:
        """Return why Redis cannot be reached or does not answer, without secrets.

        A Redis that does not know AUTH repeats its words. One of them is the password.
        """
        if isinstance(error, TimeoutError):
            return "no answer from Redis in time"
        text = _IN_SCRIPT.sub("", str(error)) or type(error).__name__
        for secret in filter(None, self._secrets):
            text = text.replace(secret, "***")
        return text

    async def has_moved(self) -> bool:
        """Tell whether the way now leads to another Redis than the last connection.

        Sentinels may name another primary while the old primary hangs, or while only the sentinels
        cannot reach it. A name may lead to another Redis while the old one still runs. In a cluster
        there is nothing to ask, because the node itself redirects the next command.
        """
        host = self._options.get("host")
        if not self._kind and host:
            return self._opener.has_moved(host)
        if self._primary is None:
            return False
        try:
            return await self._primary_by_vote() != self._primary
        except Exception:  # whatever a sentinel sends, counting goes on
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

        The first answer is not enough. During a failover, or while the network is split, the
        sentinels may name different primaries. The visits that the primary of the minority counts
        are lost.
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
            # A sentinel names the new primary as soon as the new primary takes writes.
            address = await sentinel.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service
            )
        finally:
            await close(sentinel)
        if address is None:
            raise NoWayError(f"the sentinels do not know the service {self._service}")
        return told(address, by=seed)

    async def _follow(self, node: Address) -> Opened:
        for _ in range(MAX_NODES):
            try:
                return Opened(await self._open_cluster_node(node))
            except AskError as error:
                redirection = error
            node = redirected(redirection, by=node)
            if not isinstance(redirection, MovedError):
                # The slot is moving, and its keys may already be at the new node.
                return Opened(await self._open_at(node), asking=True)
        raise NoWayError("the nodes of the cluster redirect from one to another")

    async def _open_cluster_node(self, address: Address) -> Redis:
        redis = await self._open_at(address)
        async with closed_on_error(redis):
            try:
                await redis.exists(self._key)
            except ValueError:  # redis-py raises it when it cannot read the redirection
                raise NoWayError(f"{address[0]}:{address[1]} redirects to no address") from None
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

        :arg password: is called now; with None, the password in the options is used.
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
        except OSError as error:  # its text names no file
            names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
            files = ", ".join(f"{n}={self._options[n]}" for n in names if n in self._options)
            raise OSError(f"cannot use {files}: {error.strerror or error}") from None
