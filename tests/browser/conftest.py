"""Debian's Chromium, driven by Playwright, and three replicas behind a balancer."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, sync_playwright

from tests.support import ROOT
from tests.support.program import Program
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

REPLICA = Path(__file__).parent / "replica.py"

SCREENSHOTS = ROOT / "screenshots"

#: How Chromium itself tells that a stream ended early, or that nobody took its connection.
LOST = re.compile(
    r"Failed to load resource: net::ERR_"
    r"(CONNECTION_REFUSED|CONNECTION_RESET|CONNECTION_CLOSED|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING)"
)

NAMES = ("web-1", "web-2", "web-3")


def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium."""
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


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Open ``/live`` of a server in a browser of its own; fail if it complains of anything."""
    opened: list[Opened] = []

    def open_page(url: str, **options: object) -> Opened:
        context = browser.new_context(viewport={"width": 1000, "height": 900}, **options)  # type: ignore[arg-type]
        context.set_default_timeout(1000 * PATIENCE)
        one = Opened(context.new_page())
        opened.append(one)
        one.page.goto(url if "/live" in url else f"{url}/live")
        return one

    yield open_page
    for one in opened:
        one.page.context.close()
    assert [one.complaints for one in opened] == [[]] * len(opened)


@pytest.fixture
def replicas(
    valkey: Valkey, program: Callable[..., Program]
) -> Iterator[tuple[str, dict[str, Program]]]:
    """Three replicas that share a Valkey, and the URL of the balancer before them."""
    started = {
        name: program(
            f"--redis-url={valkey.url}", "--access-log=false", script=REPLICA, HOSTNAME=name
        )
        for name in NAMES
    }
    with Proxy([one.port for one in started.values()]) as balancer:
        yield f"http://127.0.0.1:{balancer.port}", started
