"""The live page, as the tests look at it: by roles and names, and by what is drawn."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.support import ROOT
from tests.support.program import Program, Start
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until

#: `open_page` of ``conftest.py``; what it returns is an `Opened`.
Open = Callable[..., Any]

SCREENSHOTS = ROOT / "screenshots"

#: Hides a page, which no test can do from outside.
HIDE = """
globalThis.hide = (hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};"""

NAMES = ("web-1", "web-2", "web-3")

expect.set_options(timeout=1000 * PATIENCE)


def start_replica(
    start: Start, hostname: str, *flags: str, version: str = "", **env: str
) -> Program:
    """:arg env: SILENT_AFTER, the seconds after which it takes others for silent."""
    own = {"script": Path(__file__).parent / "replica.py", "HOSTNAME": hostname}
    return start("--access-log=false", *flags, VERSION_LABEL=version, **own, **env)


def write_replica(valkey: Valkey, hostname: str, **fields: str) -> None:
    """Write what another replica, maybe of another release, may have written."""
    own = {"hostname": hostname, "visits": "1", "started": f"{time.time():.3f}"}
    key = f"{{counter}}:process:of-{hostname}"
    pipeline = valkey.client.pipeline()
    pipeline.hset(key, mapping=own | fields)  # type: ignore[arg-type]
    pipeline.expire(key, 24 * 60 * 60)  # by which it is told when it was seen
    pipeline.zadd("{counter}:processes", {f"of-{hostname}": time.time()})
    pipeline.execute()


def total(page: Page) -> int:
    return int(page.locator("#total").inner_text().replace(",", "") or -1)


def row(page: Page, hostname: str) -> Locator:
    return page.get_by_role("row").filter(
        has=page.get_by_role("rowheader", name=hostname, exact=True)
    )


def names(page: Page) -> list[str]:
    return page.locator("tbody th").all_inner_texts()


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def hold(page: Page, until: Callable[[], None]) -> None:
    """Hold the button until something is so. Nothing above the button may change meanwhile."""
    page.locator("#send").hover()
    page.mouse.down()
    expect(page.locator("#send")).to_have_class("held")
    until()
    page.mouse.up()
    expect(page.locator("#sent")).to_have_attribute("aria-busy", "false")


def is_live(page: Page) -> None:
    expect(status(page)).to_have_text("Live")
    expect(page.locator("#picture")).not_to_have_class(re.compile("stale"))


def happened(page: Page) -> list[str]:
    """What the list says, without the times, the newest first."""
    return page.get_by_role("log").locator("li > span").all_inner_texts()


def wait_for_marks(page: Page, *marks: str) -> None:
    for mark in marks:
        expect(page.get_by_role("log")).to_contain_text(mark)


def shares(page: Page) -> dict[str, float]:
    """The legend: each version's share of the visits in view, in percent."""
    # All at once: one by one, they could be of two seconds.
    found = (one.rsplit(" ", 1) for one in page.locator("#legend li").all_inner_texts())
    return {version.strip(): float(share.rstrip("%")) for version, share in found}


def steps(page: Page) -> int:
    """How many steps with visits are drawn, those of each version counted."""
    edges = page.locator("#chart .line").evaluate_all(
        "(all) => all.map((one) => one.getAttribute('d'))"
    )
    return sum(edge.count("H") for edge in edges)


def heights(page: Page) -> list[float]:
    """The distance from the axis, in pixels, of each point that is drawn of the edges."""
    return page.evaluate(
        """() => {
          const zero = document.querySelector("#chart .grid").getAttribute("y1");
          return [...document.querySelectorAll("#chart .line")].flatMap((one) =>
            [...one.getAttribute("d").matchAll(/[ V]([0-9.]+)H/g)].map(([, y]) => zero - y));
        }"""
    )


def stacked(page: Page) -> list[list[bool]]:
    """In the last second drawn: which layers are at the axis, which below the uppermost edge."""
    return page.evaluate(
        """() => {
          const zero = document.querySelector("#chart .grid").getAttribute("y1");
          const edges = [...document.querySelectorAll("#chart .line")];
          const last = edges.at(-1).getAttribute("d");
          const [, y, x] = [...last.matchAll(/[ V]([0-9.]+)H([0-9.]+)/g)].at(-1);
          return [zero - 0.5, Number(y) + 0.5].map((height) => edges.map((edge) =>
            edge.previousSibling.isPointInFill(new DOMPoint(x - 1, height))));
        }"""
    )


def wait_for_steps(page: Page, number: int) -> None:
    wait_until(lambda: steps(page) >= number, pause=0.1)


def wait_for_draws(page: Page, number: int) -> None:
    """Wait until the chart was drawn so often again."""
    page.evaluate(
        """(number) => new Promise((done) => {
          const observer = new MutationObserver(() => {
            if (--number === 0) { observer.disconnect(); done(); }
          });
          observer.observe(document.querySelector("#chart"), { childList: true });
        })""",
        number,
    )


def looks(page: Page) -> Iterator[str]:
    """Show the page light and dark, wide and narrow, one after the other; then as it was."""
    for width, size in ((1000, "wide"), (360, "narrow"), (320, "least")):
        page.set_viewport_size({"width": width, "height": 820})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            wait_for_draws(page, 1)
            yield f"{size}-{scheme}"
    page.set_viewport_size({"width": 1000, "height": 900})
    page.emulate_media(color_scheme="light")


def photograph(page: Page, name: str) -> None:
    """Write the page, light and dark, wide and narrow, into screenshots/."""
    SCREENSHOTS.mkdir(exist_ok=True)
    for look in looks(page):
        assert page.evaluate(
            """() => [document.documentElement, ...document.querySelectorAll(".card")]
              .every((one) => one.scrollWidth <= one.clientWidth)"""
        ), f"it does not fit: {look}"
        page.screenshot(path=SCREENSHOTS / f"{name}-{look}.png", full_page=True)


def streams(server: Program) -> int:
    found = re.search(r"^friendlyhello_live_watchers (\d+)", server.get("/metrics")[1], re.M)
    assert found
    return int(found[1])
