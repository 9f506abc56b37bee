"""Behind a real nginx: it passes a path on or takes it away, compresses, and names its client."""

import json
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.live import Open, hold, is_live
from tests.support.nginx import nginx
from tests.support.program import Start
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize("prefix", ["/hello", ""], ids=["path passed on", "path taken away"])
def test_the_live_page_works_below_a_path_of_nginx(
    prefix: str, valkey: Valkey, folder: Path, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}", f"--path-prefix={prefix}")
    target = server.url if prefix else f"{server.url}/"
    with nginx(folder, "/hello/", target) as port:
        page = open_page(f"http://127.0.0.1:{port}/hello/live").page
        is_live(page)
        server.get(f"{prefix}/")
        expect(page.locator("#total")).to_have_text("1")
        icon = page.locator("link[rel=icon]").evaluate(
            "(one) => fetch(one.href).then((a) => a.status)"
        )
        assert icon == 200
        hold(page, lambda: expect(page.locator("#squares > svg")).not_to_have_count(0))
        sent = page.locator("#sent").inner_text()
        assert (answered := re.fullmatch(rf"{re.escape(socket.gethostname())} ×(\d+)", sent)), sent
        page.get_by_role("link", name="the greeting").click()
        expect(page.get_by_text("Hello world!")).to_be_visible()
        assert page.url == f"http://127.0.0.1:{port}/hello/"
    assert valkey.counter() == 2 + int(answered[1])


HEADERS = {"Accept-Encoding": "gzip", "X-Forwarded-For": "203.0.113.9"}


def compressed_events(client: HTTPConnection) -> Iterator[dict[str, object]]:
    client.request("GET", "/live/events", headers=HEADERS)
    answer = client.getresponse()
    assert answer.headers["Content-Encoding"] == "gzip"
    unpacker = zlib.decompressobj(wbits=31)
    text = b""
    while chunk := answer.read1():
        text += unpacker.decompress(chunk)
        *blocks, text = text.split(b"\n\n")
        for block in blocks:
            if found := re.search(rb'^data: (\{"time".*)', block, re.MULTILINE):
                yield json.loads(found[1])


def test_nginx_keeps_no_event_back_and_names_its_client_whatever_that_one_says(
    valkey: Valkey, folder: Path, counting: Start
) -> None:
    flags = ("--trusted-proxies=127.0.0.1", "--log-format=json")
    server = counting(f"--redis-url={valkey.url}", *flags)
    with (
        nginx(folder, "/", server.url) as port,
        closing(HTTPConnection("127.0.0.1", port, PATIENCE, ("127.0.0.2", 0))) as client,
    ):
        events = compressed_events(client)
        next(events)
        for _ in range(3):
            number = server.visits()
            # Some may have been on their way; kept back by nginx, it would be half a minute's.
            assert number in (next(events)["total"] for _ in range(10))
    requests = [line for line in map(json.loads, server.stop()) if "status" in line]
    assert [one["remote"] for one in requests if "events" in one["message"]] == ["127.0.0.2"]
