"""What Docker's get-started guide has its readers run, part 2, to stand beside friendlyhello."""

import os
import socket

from flask import Flask
from redis import Redis, RedisError

redis = Redis(host="redis", db=0, socket_connect_timeout=2, socket_timeout=2)
app = Flask(__name__)


@app.route("/")
def hello():
    try:
        visits = redis.incr("counter")
    except RedisError:
        visits = "<i>cannot connect to Redis, counter disabled</i>"
    name, hostname = os.getenv("NAME", "world"), socket.gethostname()
    return f"<h3>Hello {name}!</h3><b>Hostname:</b> {hostname}<br/><b>Visits:</b> {visits}"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=80)
