"""The private parts of redis-py that the counter uses, each with its reason.

No other module of the package reaches behind redis-py's public interface, so that a new version
of it has to be checked against this page alone. ``tests/test_house.py`` names the version.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis, SSLConnection
from redis.exceptions import ConnectionError, ResponseError

#: Seconds that closing waits for the other end's close of TLS: a server that hangs sends none, and
#: asyncio would keep the connection open for half a minute.
TLS_CLOSE_TIMEOUT = 0.5

#: What the system, or a stream, says of a connection that has ended.
_ENDINGS = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    asyncio.IncompleteReadError,
)


class NamedSSLConnection(SSLConnection):
    """TLS to an address, whose certificate is for the name that it was looked up by.

    redis-py takes the certificate's name from the host that it connects to, and offers no other
    way to set it, or how long closing may take, than this method's result.

    :arg server_name: the name that the certificate is for.
    """

    def __init__(self, *, server_name: str, **options: Any) -> None:
        super().__init__(**options)
        self._server_name = server_name

    def _connection_arguments(self) -> dict[str, Any]:
        return {
            **super()._connection_arguments(),
            "server_hostname": self._server_name,
            "ssl_shutdown_timeout": TLS_CLOSE_TIMEOUT,
        }


def was_cut(error: Exception) -> bool:
    """Tell whether a connection that had been made has ended, so that the next one may last.

    Of redis-py's errors none says so: the same stands for a Redis that refuses the connection, and
    only what was being handled when it was raised tells them apart; or the text, where Redis has
    taken the connection to say that it takes no more.
    """
    made = error.__context__ is None or isinstance(error.__context__, _ENDINGS)
    return type(error) is ConnectionError and made and "number of clients" not in str(error)


def take_over(redis: Redis, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
    """Give the transport of an idle client to another protocol.

    redis-py has no way to hand over its connection: its reader and writer are private, and so is
    what the reader has read ahead.

    :arg redis: connected, and idle; it is not to be used any more.
    :arg protocol: receives what Redis sends from now on.
    :return: the writer; the transport is closed when it is collected.
    :raises ResponseError: when Redis has said why it does not take the connection.
    :raises ConnectionError: when Redis has sent what it was not asked for, or has gone.
    """
    connection, redis.connection = redis.connection, None
    assert connection is not None
    reader, connection._reader = connection._reader, None
    writer, connection._writer = connection._writer, None
    assert reader is not None
    assert writer is not None
    if reader._buffer or reader.at_eof() or reader.exception():  # type: ignore[attr-defined]
        writer.transport.abort()
        said, end, _ = bytes(reader._buffer).partition(b"\r\n")  # type: ignore[attr-defined]
        if said.startswith(b"-") and end:
            raise ResponseError(said[1:].decode(errors="replace").removeprefix("ERR "))
        raise ConnectionError("Redis sent what it was not asked for, or closed the connection")
    writer.transport.set_protocol(protocol)
    return writer
