"""Sanic, in one process. ``python sanic_app.py [--log]``."""

import os
import sys

from page import certificate, connect, hello
from sanic import Sanic, response

app = Sanic("hello")
redis = connect()


@app.get("/")
async def index(request):
    return response.html(await hello(redis))


if __name__ == "__main__":
    app.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        single_process=True,
        ssl=certificate(),
        access_log="--log" in sys.argv,
        motd=False,
    )
