"""HTTP/1.1 for Tornado applications: the connection of one client, on an asyncio transport."""

from http1.connection import FAREWELL, Connection, Limits, Server

__all__ = ["FAREWELL", "Connection", "Limits", "Server"]
