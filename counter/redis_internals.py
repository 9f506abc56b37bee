"""The private parts of redis-py that the counter uses, each with its reason.

No other module of the package uses private parts of redis-py. So for a new version of redis-py,
check only this module. ``tests/test_house.py`` names the version.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis, SSLConnection
from redis.exceptions import ConnectionError, ResponseError

#: Seconds to wait at the end of a TLS connection until the other end closes TLS, too. A server that
#: hangs does not close it, and asyncio would keep the connection open for half a minute.
TLS_CLOSE_TIMEOUT = 0.5

#: What the system, or a stream, raises when a connection has ended.
_ENDINGS = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    asyncio.IncompleteReadError,
)


class NamedSSLConnection(SSLConnection):
    """TLS to an IP address. The certificate must be for the name that was looked up.

    redis-py expects the certificate to name the host that it connects to, here the IP address.
    Only the result of ``_connection_arguments`` can change this, and how long closing may take.

    :arg server_name: the name that the certificate must be for.
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
    """Tell whether an open connection was cut. If so, the next connection may last.

    redis-py raises the same error when Redis refuses a connection. Only the error's context tells
    the two apart. Redis may also accept a connection just to say that it takes no more. Then only
    the error's text tells.
    """
    made = error.__context__ is None or isinstance(error.__context__, _ENDINGS)
    return type(error) is ConnectionError and made and "number of clients" not in str(error)


def take_over(redis: Redis, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
    """Give the transport of an idle client to another protocol.

    redis-py has no way to hand over its connection: its reader and writer are private, and so are
    the bytes that the reader has read ahead.

    :arg redis: a client that is connected and idle. The caller must not use it any more.
    :arg protocol: receives what Redis sends from now on.
    :return: the writer. When Python collects the writer, it closes the transport.
    :raises ResponseError: when Redis has said why it does not take the connection.
    :raises ConnectionError: when Redis has sent something unasked, or has closed the connection.
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
        raise ConnectionError("Redis sent something unasked, or closed the connection")
    writer.transport.set_protocol(protocol)
    return writer
