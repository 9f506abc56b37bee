"""The visit, the page and the certificate of the Python peers with an event loop."""

import html
import os
import socket
import ssl

from redis.asyncio import Redis
from redis.exceptions import RedisError

NAME = html.escape(os.getenv("NAME", "world"))
HOSTNAME = html.escape(socket.gethostname())


def certificate() -> ssl.SSLContext | None:
    """Return the TLS settings for HTTPS; None for plain HTTP."""
    if "TLS_CERT" not in os.environ:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    return context


def connect() -> Redis:
    """Return a client whose pool has a connection for each visit under way.

    A smaller pool, in which visits wait for a connection, was measured too, and is slower.
    """
    return Redis.from_url(
        os.environ["REDIS_URL"], socket_connect_timeout=2, socket_timeout=2, max_connections=1024
    )


async def hello(redis: Redis) -> str:
    """Count a visit and return its page."""
    try:
        visits = await redis.incr("counter")
    except RedisError:
        visits = "<i>cannot connect to Redis, counter disabled</i>"
    return f"<h3>Hello {NAME}!</h3><b>Hostname:</b> {HOSTNAME}<br/><b>Visits:</b> {visits}"
