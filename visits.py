"""The visit counter: one integer in Redis, raised in groups, bounded in time.

Visits that arrive while a command is under way wait in a queue and are counted together by
the next one. There is one connection and one command under way at a time; a command is sent
once, and a connection whose reply is in doubt is closed, never read again. After any failure
the counter is off: visits are answered at once while a background task looks for Redis.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from typing import Any

from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError

KEY = "counter"

#: Seconds between two looks for Redis, or at an idle connection. "Back within 2 s" rests on it.
PROBE_EVERY = 0.5

#: Seconds that a probe may take to connect, however long a visit may wait. A try that is
#: stuck costs no time: the next one starts beside it.
PATIENCE = 2.0

#: Tries under way at once. Only hung name look-ups, which cannot be cancelled, add up to so many.
MOST_TRIES = 32

#: Redis refuses to raise an integer past 64 bits (https://redis.io/commands/incrby).
LAST_NUMBER = 2**63 - 1

#: A visit in the queue: its number, or None when there will be none.
Waiter = asyncio.Future[int | None]

log = logging.getLogger("friendlyhello.visits")


class Visits:
    """Gives each visit its number.

    :arg url: where Redis is, as redis-py reads it (``redis://``, ``rediss://``, ``unix:``).
    :arg password: used instead of the URL's own.
    :arg timeout: seconds from a visit's arrival to its number, looking up the name,
        connecting, sending and reading included.
    :raises ValueError: when the URL cannot be read.
    :raises OSError: when a certificate that the URL names cannot be loaded.
    """

    def __init__(self, url: str, *, password: str | None = None, timeout: float = 2.0) -> None:
        self._options = {
            # redis-py would retry each command ten times, on timeouts too: a visit would
            # count again. Its own timeouts are off because the deadline is kept here.
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": None,
            # RESP2 and no driver info: connecting takes no command but AUTH and SELECT.
            "protocol": 2,
            "driver_info": None,
        }
        self._url = url
        self._password = password
        self._timeout = timeout
        self._check_certificates()

        self._redis: Redis | None = None
        self._off = False
        self._queue: list[Waiter] = []
        self._under_way: list[Waiter] = []  # those that the command under way counts
        self._deadline = 0.0  # of the first visit in the queue, so of all of them
        self._sender: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether visits are being counted, as far as is known."""
        return not self._off and self._keeper is not None

    async def start(self, patience: float) -> None:
        """Find Redis before the first visit asks for it; not found, the counter starts off.

        :arg patience: seconds to wait for Redis.
        """
        self._keep()
        try:
            async with asyncio.timeout(patience):
                self._redis = await self._connect()
                await self._redis.ping()
            log.info("counter on")
        except Exception as error:
            await self._turn_off(error)

    async def close(self) -> None:
        """Stop looking for Redis and close the connection; visits that wait get no number."""
        tasks = [task for task in (self._keeper, self._sender) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._off = True
        self._answer_without_number()
        await self._drop()

    async def count(self) -> int | None:
        """Count one visit.

        :return: its number, or None when Redis did not give one in time.
        """
        if self._off:
            return None
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        if not self._queue:
            self._deadline = loop.time() + self._timeout
        self._queue.append(waiter)
        self._keep()
        self._send_soon()
        return await waiter

    # Sending: one command at a time, for all that wait.

    def _send_soon(self) -> None:
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            while True:
                async with asyncio.timeout_at(self._deadline):
                    redis = await self._sound_connection()
                    batch, self._queue = self._queue, []
                    if not batch:  # woken for the connection's sake alone
                        return
                    self._under_way = batch
                    last = await _raise_counter(redis, len(batch))
                for number, waiter in enumerate(batch, last - len(batch) + 1):
                    _answer(waiter, number)
                if not self._queue:
                    return
        except Exception as error:
            # Not only Redis's errors: whatever a server may send, a page is answered.
            await self._turn_off(error)
        finally:
            self._sender = None

    async def _sound_connection(self) -> Redis:
        """Return a connection on which every command has had its reply, and nothing else."""
        if self._redis is not None and await _is_readable(self._redis):
            await self._drop()
        if self._redis is None:
            self._redis = await self._connect()
        return self._redis

    # On and off.

    async def _turn_off(self, error: Exception) -> None:
        self._off = True
        self._answer_without_number()
        log.warning("counter off: %s", _reason(error))
        await self._drop()

    def _answer_without_number(self) -> None:
        waiters = self._under_way + self._queue
        self._under_way, self._queue = [], []
        for waiter in waiters:
            _answer(waiter, None)

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connection())

    async def _keep_connection(self) -> None:
        """While off, look for Redis; while on and idle, replace a connection that it closed."""
        while True:
            await asyncio.sleep(PROBE_EVERY)
            if self._off:
                self._redis = await self._find()
                self._off = False
                log.info("counter on")
            elif self._sender is None and self._redis and await _is_readable(self._redis):
                self._deadline = asyncio.get_running_loop().time() + self._timeout
                self._send_soon()

    async def _find(self) -> Redis:
        """Try until Redis counts again; a fresh try at each tick, as a stuck one may stay so."""
        found: asyncio.Future[Redis] = asyncio.get_running_loop().create_future()

        async def attempt() -> None:
            with contextlib.suppress(Exception):
                redis = await self._probe()
                if found.done():
                    await _close(redis)
                else:
                    found.set_result(redis)

        tries: set[asyncio.Task[None]] = set()
        try:
            while not found.done():
                if len(tries) < MOST_TRIES:
                    task = asyncio.create_task(attempt())
                    tries.add(task)
                    task.add_done_callback(tries.discard)
                await asyncio.wait([found], timeout=PROBE_EVERY)
            return found.result()
        finally:
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    # Connecting.

    async def _probe(self) -> Redis:
        """Connect, and ask just what a visit asks, adding nothing.

        A visit may have to wait for the command under way and then for its own, so a Redis
        that takes more than half the deadline to reply cannot serve.
        """
        redis = await self._connect()
        try:
            async with asyncio.timeout(min(self._timeout, PATIENCE) / 2):
                if await _raise_counter(redis, 0) == LAST_NUMBER:
                    raise OverflowError("the counter is at its 64-bit end")
        except BaseException:
            await _close(redis)
            raise
        return redis

    async def _connect(self) -> Redis:
        host = self._pool().connection_kwargs.get("host")
        addresses = await _look_up(host) if host else [None]
        async with asyncio.timeout(min(self._timeout, PATIENCE)):
            for address in addresses[:-1]:
                with contextlib.suppress(ConnectionError):
                    return await self._open(address)
            return await self._open(addresses[-1])

    async def _open(self, address: str | None) -> Redis:
        redis = Redis(connection_pool=self._pool(address), single_connection_client=True)
        try:
            return await redis.initialize()
        except BaseException:
            await _close(redis)
            raise

    def _pool(self, address: str | None = None) -> ConnectionPool:
        pool = ConnectionPool.from_url(self._url, **self._options)
        options = pool.connection_kwargs
        if self._password is not None:
            options["password"] = self._password
        if address is not None:
            if issubclass(pool.connection_class, SSLConnection):
                pool.connection_class = _NamedSSLConnection
                options["server_name"] = options["host"]
            options["host"] = address
        return pool

    def _check_certificates(self) -> None:
        connection = self._pool().make_connection()
        if isinstance(connection, SSLConnection):
            try:
                connection.ssl_context.get()
            except OSError as error:  # it does not say which file
                options = self._pool().connection_kwargs
                names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
                files = ", ".join(f"{name}={options[name]}" for name in names if name in options)
                raise OSError(f"cannot use {files}: {error.strerror or error}") from None

    async def _drop(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            await _close(redis)


def _answer(waiter: Waiter, number: int | None) -> None:
    if not waiter.done():  # its visitor may have given up
        waiter.set_result(number)


async def _raise_counter(redis: Redis, visits: int) -> int:
    """Send one command (https://redis.io/commands/incrby) and return what the counter holds."""
    command = ("INCR", KEY) if visits == 1 else ("INCRBY", KEY, visits)
    reply = await redis.execute_command(*command)
    if type(reply) is not int or not -LAST_NUMBER <= reply <= LAST_NUMBER:
        raise ValueError(f"{command[0]} was answered with {repr(reply)[:100]}")
    return reply


async def _is_readable(redis: Redis) -> bool:
    """Whether an idle connection holds what it should not: the end, or a reply not asked for."""
    connection = redis.connection
    # can_read() takes a connection that was reset for one with nothing to read.
    if connection is None or connection._reader is None or connection._reader.exception():
        return True
    try:
        return bool(await connection.can_read())
    except RedisError:
        return True


async def _close(redis: Redis) -> None:
    # Without waiting: the other end may be hung.
    if redis.connection is not None:
        await redis.connection.disconnect(nowait=True)
    await redis.aclose(close_connection_pool=True)


class _NamedSSLConnection(SSLConnection):
    """TLS to an address, whose certificate is for the name that it was looked up by."""

    def __init__(self, *, server_name: str, **options: Any) -> None:
        super().__init__(**options)
        self._server_name = server_name

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self._server_name}


async def _look_up(host: str) -> list[str]:
    """Return the addresses of a host, looked up in a thread of its own.

    The loop would look them up in a few threads of its pool, which a resolver that hangs fills,
    and which the end of the program waits for. Nobody waits for this one.

    :raises OSError: when the name does not resolve.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def finish(addresses: list[str], error: OSError | None) -> None:
        if answer.done():  # whoever asked has given up
            return
        if error is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(error)

    def ask() -> None:
        addresses, error = [], None
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = [str(address[0]) for *_, address in found]
        except OSError as failure:
            error = OSError(f"cannot resolve {host}: {failure.strerror}")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish, addresses, error)

    threading.Thread(target=ask, name=f"look-up of {host}", daemon=True).start()
    return await answer


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer from Redis in time"
    return str(error) or type(error).__name__
