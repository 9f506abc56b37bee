"""Tornado, with redis.asyncio. ``python tornado_app.py [--logging=none]``."""

import asyncio
import os

from page import certificate, connect, hello
from tornado.options import parse_command_line
from tornado.web import Application, RequestHandler


class HelloHandler(RequestHandler):
    def initialize(self, redis):
        self.redis = redis

    async def get(self):
        self.write(await hello(self.redis))


async def main():
    app = Application([("/", HelloHandler, {"redis": connect()})])
    app.listen(int(os.environ["PORT"]), "127.0.0.1", ssl_options=certificate())
    await asyncio.Event().wait()


if __name__ == "__main__":
    parse_command_line()
    asyncio.run(main())
