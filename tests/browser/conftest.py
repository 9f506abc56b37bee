"""Debian's Chromium, driven by Playwright, and the servers whose pages it opens."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Playwright,
    sync_playwright,
)

from tests.browser.live import NAMES, Open, start_replica
from tests.support.ports import held_port
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

#: How Chromium itself tells that a stream ended early, or that nobody took its connection.
LOST = re.compile(
    r"Failed to load resource: net::ERR_"
    r"(CONNECTION_REFUSED|CONNECTION_RESET|CONNECTION_CLOSED|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING)"
)


def launch(playwright: Playwright) -> Browser:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("no Chromium: apt-get install chromium", pytrace=False)
    # Its sandbox is not for root, and a container's /dev/shm is small.
    flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    return playwright.chromium.launch(executable_path=chromium, args=flags)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        one = launch(playwright)
        yield one
        one.close()


class Opened:
    """A page that was opened, and all that the browser had to complain about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.may_lose = False
        """Whether the test takes the connection away."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (event) => console.error('policy: ' + event.violatedDirective))"
        )

    def _on_console(self, message: ConsoleMessage) -> None:
        is_lost = self.may_lose and LOST.match(message.text)
        if message.type in ("error", "warning") and not is_lost:
            self.complaints.append(f"{message.type}: {message.text}")

    def forgive(self, text: str) -> None:
        """Leave out what the test has caused."""
        self.complaints = [one for one in self.complaints if text not in one]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open ``/live`` of a server, or another URL; fail if the browser complains of anything.

    It is opened in a browser of its own, or as a tab beside another page, and a script may run
    before the page's own.
    """
    opened: list[Opened] = []

    def open_page(
        url: str, script: str = "", beside: Opened | None = None, **options: object
    ) -> Opened:
        size = {"width": 1000, "height": 900}
        context = beside.page.context if beside else browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        context.set_default_timeout(1000 * PATIENCE)
        if script:
            context.add_init_script(script)
        one = Opened(context.new_page())
        opened.append(one)
        is_server = re.fullmatch(r"https?://[^/]+", url)
        one.page.goto(f"{url}/live" if is_server else url)
        return one

    yield open_page
    for one in opened:
        one.page.context.close()
    assert [one.complaints for one in opened] == [[]] * len(opened)


@pytest.fixture
def server(counting: Start, valkey: Valkey) -> Program:
    """A server under the hostname ``web-1``."""
    return start_replica(counting, "web-1", f"--redis-url={valkey.url}")


@pytest.fixture
def places() -> Iterator[list[str]]:
    """The flags of ports that stay the test's own when the replica there has ended."""
    with ExitStack() as stack:
        ports = (stack.enter_context(held_port()).getsockname()[1] for _ in NAMES)
        yield [f"--port={port}" for port in ports]


@pytest.fixture
def restartable(counting: Start, valkey: Valkey, places: list[str]) -> Callable[[], Program]:
    """Start a server on a port that stays the test's own while none listens on it."""
    return lambda: counting(f"--redis-url={valkey.url}", places[0])


@pytest.fixture
def replicas(
    valkey: Valkey, program: Start, places: list[str]
) -> Iterator[tuple[str, dict[str, Program]]]:
    """Three replicas that share a Valkey, and the URL of the balancer before them."""
    flag = f"--redis-url={valkey.url}"
    named = zip(NAMES, places, strict=True)
    started = {name: start_replica(program, name, flag, place) for name, place in named}
    with Proxy([one.port for one in started.values()]) as balancer:
        yield f"http://127.0.0.1:{balancer.port}", started
