"""aiohttp, on uvloop. ``python aiohttp_app.py [--log]``."""

import logging
import os
import sys

import uvloop
from aiohttp import web
from page import certificate, connect, hello

redis = connect()


async def index(request):
    return web.Response(text=await hello(redis), content_type="text/html")


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/", index)])
    log = None
    if "--log" in sys.argv:
        logging.basicConfig(level=logging.INFO)
        log = logging.getLogger("aiohttp.access")
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        access_log=log,
        ssl_context=certificate(),
        loop=uvloop.new_event_loop(),
    )
