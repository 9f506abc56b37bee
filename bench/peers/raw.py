"""The least that a server in Python could cost: uvloop answers constant bytes.

It is no real server: it only looks for the end of each request, and counts nothing.
"""

import asyncio
import os
import socket

import uvloop

PAGE = f"<h3>Hello world!</h3><b>Hostname:</b> {socket.gethostname()}<br/><b>Visits:</b> 1"
ANSWER = (
    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
    f"Content-Length: {len(PAGE)}\r\n\r\n{PAGE}"
).encode()


class Constant(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def main():
    loop = asyncio.get_running_loop()
    await loop.create_server(Constant, "127.0.0.1", int(os.environ["PORT"]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
