"""The app of Docker's get-started guide, part 2; Redis and the port come from the environment."""

import os
import socket
from urllib.parse import urlsplit

from flask import Flask
from redis import Redis, RedisError

# Connect to Redis
url = urlsplit(os.environ["REDIS_URL"])
redis = Redis(host=url.hostname, port=url.port, db=0, socket_connect_timeout=2, socket_timeout=2)

app = Flask(__name__)


@app.route("/")
def hello():
    try:
        visits = redis.incr("counter")
    except RedisError:
        visits = "<i>cannot connect to Redis, counter disabled</i>"

    html = "<h3>Hello {name}!</h3><b>Hostname:</b> {hostname}<br/><b>Visits:</b> {visits}"
    return html.format(
        name=os.getenv("NAME", "world"), hostname=socket.gethostname(), visits=visits
    )


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
