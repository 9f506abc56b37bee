"""Write docs/live.png and docs/live.webp: what /live shows while a canary is rolled out.

``make pictures`` runs it, which takes six minutes: a little longer than the chart is.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import launch
from tests.browser.live import start_replica
from tests.support import ROOT
from tests.support.driven import driven
from tests.support.program import Program
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

DOCS = ROOT / "docs"

SIZE = (920, 780)  # pixels, of a frame

RECORDED = (20, 330)  # seconds of the story
EVERY = 3.1  # seconds between two frames
SHOWN = 360  # milliseconds for which each is shown

QUALITY = 60  # of 100, of a frame
LIMIT = 2_000_000  # bytes


class Story:
    """Three replicas of version 1.0, one of which is killed, and two of 1.1 that replace them."""

    def __init__(self, stack: ExitStack, balancer: Proxy, valkey: Valkey) -> None:
        self._stack = stack
        self._balancer = balancer
        self._redis = stack.enter_context(Proxy([valkey.path]))  # why it is away names no path then
        self._servers: dict[str, Program] = {}
        self.acts: Iterator[tuple[float, Callable[[], None]]] = iter(
            [
                (40, lambda: self.start("web-4", "1.1", {"web-1": 3, "web-2": 3, "web-3": 3})),
                (110, valkey.kill),
                (122, valkey.start),
                (240, lambda: self._servers["web-2"].process.kill()),
                (285, lambda: self.start("web-5", "1.1", {"web-1": 1, "web-3": 1, "web-4": 1})),
                (300, lambda: self.stop("web-1")),
                (312, lambda: self.stop("web-3")),
            ]
        )

    def start(self, hostname: str, version: str, others: dict[str, int]) -> None:
        """Start a replica that gets one visit, of those that others get as many of as told."""
        url = f"redis://127.0.0.1:{self._redis.port}"
        server = start_replica(Program, hostname, f"--redis-url={url}", version=version)
        self._stack.callback(server.close)
        self._servers[hostname] = server
        shares = others | {hostname: 1}
        self._balancer.targets = [
            self._servers[name].port
            for turn in range(max(shares.values()))
            for name, share in shares.items()
            if turn < share
        ]

    def stop(self, hostname: str) -> None:
        self._servers[hostname].signal()


def record(page: Page, story: Story) -> list[Image.Image]:
    """Let the story happen, write docs/live.png, and return the frames."""
    begun = time.monotonic()
    frames: list[Image.Image] = []
    due, act = next(story.acts)
    still = 270.0
    while (now := time.monotonic() - begun) < RECORDED[1]:
        if now >= due:
            act()
            due, act = next(story.acts, (float("inf"), act))
        if now >= still:
            page.screenshot(path=DOCS / "live.png", full_page=True)
            still = float("inf")
        if now >= RECORDED[0] + EVERY * len(frames):
            frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        page.wait_for_timeout(50)
    return frames


def main() -> None:
    with ExitStack() as stack:
        valkey = Valkey(Path(stack.enter_context(TemporaryDirectory(prefix="hello-"))))
        stack.callback(valkey.close)
        valkey.start()
        balancer = stack.enter_context(Proxy([]))
        story = Story(stack, balancer, valkey)
        for number in (1, 2, 3):
            story.start(f"web-{number}", "1.0", {f"web-{one}": 1 for one in range(1, number)})
        url = f"http://127.0.0.1:{balancer.port}"
        browser = launch(stack.enter_context(sync_playwright()))
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, locale="en-GB")
        page.goto(f"{url}/live")
        with driven(url, rate=50, concurrency=8, keep_alive=False):
            first, *rest = record(page, story)
        browser.close()
    film = DOCS / "live.webp"
    first.save(
        film, save_all=True, append_images=rest, duration=SHOWN, loop=0, quality=QUALITY, method=4
    )
    assert film.stat().st_size < LIMIT, f"{film} has {film.stat().st_size} bytes"


if __name__ == "__main__":
    main()
