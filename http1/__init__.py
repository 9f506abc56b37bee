"""An HTTP/1.1 server for Tornado applications, on asyncio's transports.

`HTTPServer`, `Application` and `RequestHandler` take the places of Tornado's classes of these
names. The package knows nothing of the program around it. It speaks no HTTP/2, and it is no
client.
"""

from http1.connection import ClientConnection
from http1.reading import Limits
from http1.server import DRAIN_PAUSE, HTTPServer
from http1.tornado_internals import RequestHandler
from http1.web import Application

__all__ = [
    "DRAIN_PAUSE",
    "Application",
    "ClientConnection",
    "HTTPServer",
    "Limits",
    "RequestHandler",
]
