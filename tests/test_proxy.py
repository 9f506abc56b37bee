"""The server behind a proxy: whose address it logs, and the path that stands before every path."""

import json
import socket
from collections.abc import Callable

from tests.support.program import Program
from tests.support.raw_http import answers_in, read_to_end
from tests.support.waiting import PATIENCE

Start = Callable[..., Program]

NOWHERE = "--redis-url=unix:/nowhere/redis.sock"


def ask_from(server: Program, host: str, path: str = "/nothing", **headers: str) -> int:
    """Send a request from an address of this machine's; return the status of the answer."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    request = [f"GET {path} HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""]
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, PATIENCE, source_address=(host, 0)) as client:
        client.sendall("\r\n".join(request).encode())
        (answer,) = answers_in(read_to_end(client))
    return answer.status


# Whose address is in the log.


def test_the_log_names_whom_a_trusted_proxy_names_and_no_one_elses_word_counts(
    program: Start,
) -> None:
    said = {"X_Forwarded_For": "6.6.6.6, 203.0.113.9, 127.0.0.9", "X_Real_Ip": "7.7.7.7"}
    believed, not_believed = "203.0.113.9", "127.0.0.1"
    for flags, logged in (
        (["--trusted-proxies=127.0.0.2,127.0.0.8/31"], [believed, not_believed]),
        ([], ["127.0.0.2", not_believed]),
    ):
        server = program(NOWHERE, "--log-format=json", *flags)
        for host in ("127.0.0.2", "127.0.0.1"):
            assert ask_from(server, host, **said) == 404
        server.signal()
        assert server.wait() == 0
        lines = [json.loads(line) for line in server.log.splitlines()]
        requests = [line for line in lines if "status" in line]
        assert [line["remote"] for line in requests] == logged
        for line in requests:
            assert f"({line['remote']})" in line["message"]
