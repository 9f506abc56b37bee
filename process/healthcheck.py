"""``python server.py --healthcheck``: asks whether the server is alive.

It imports as little as it can, since every container runs it every few seconds.
"""

import http.client
import sys
from typing import NoReturn

import config
from config import Settings
from process.messages import fail


def what_is_wrong(settings: Settings) -> str | None:
    """Ask the server of the same settings for ``/healthz``.

    :return: what is wrong with it, or None when it is healthy.
    """
    host = {None: "localhost", "0.0.0.0": "127.0.0.1"}.get(settings.address, settings.address)
    connection = http.client.HTTPConnection(str(host), settings.port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host} port {settings.port}: {error}"
    return None if status == 200 else f"{host} port {settings.port} answered {status}"


def check_health() -> NoReturn:
    """End with status 0 when the server is healthy, 1 when not, 2 for a bad setting."""
    try:
        wrong = what_is_wrong(config.load())
    except config.SettingError as error:
        fail(2, error)
    if wrong:
        fail(1, wrong)
    sys.exit(0)
