"""The live page, as a person sees it who opens it in a browser."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NAMES, REPLICA, SCREENSHOTS, Opened
from tests.support.driven import driven
from tests.support.ports import held_port
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

Open = Callable[..., Opened]
Start = Callable[..., Program]
Replicas = tuple[str, dict[str, Program]]

expect.set_options(timeout=1000 * PATIENCE)


def total(page: Page) -> int:
    return int(page.locator("#total").inner_text().replace(",", "") or -1)


def row(page: Page, hostname: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=hostname))


def is_live(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("Live")
    expect(page.locator("#picture")).not_to_have_class(re.compile("stale"))


def points(page: Page) -> list[tuple[float, float]]:
    """The points of the line."""
    lines = [one.get_attribute("points") or "" for one in page.locator("#chart .line").all()]
    return [(float(x), float(y)) for line in lines for x, y in [p.split(",") for p in line.split()]]


def wait_for_points(page: Page, number: int) -> None:
    """Wait until so many seconds are drawn."""
    for _ in range(int(10 * PATIENCE)):
        if len(points(page)) >= number:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"no {number} points: {points(page)}")


def assert_fits(page: Page) -> None:
    """Assert that nothing has to be scrolled sideways for, or leaves its frame."""
    assert page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll(".card")]
          .every((one) => one.scrollWidth <= one.clientWidth)"""
    )


def photograph(page: Page) -> None:
    """Write the page, light and dark, wide and narrow."""
    SCREENSHOTS.mkdir(exist_ok=True)
    for width, name in ((1000, "wide"), (360, "narrow"), (320, "least")):
        page.set_viewport_size({"width": width, "height": 820})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            wait_for_points(page, len(points(page)) + 1)  # it is drawn anew with the next event
            assert_fits(page)
            page.screenshot(path=SCREENSHOTS / f"live-{name}-{scheme}.png", full_page=True)


def test_three_replicas_under_load_share_the_visits_and_one_that_is_killed_falls_out(
    valkey: Valkey, replicas: Replicas, open_page: Open
) -> None:
    url, programs = replicas
    valkey.client.set("counter", 12_000_000)  # large numbers fit a phone, too
    for name in NAMES:
        key = f"{{counter}}:process:of-{name}"
        valkey.client.hset(key, mapping={"hostname": name, "visits": 4_000_000})
        valkey.client.expire(key, 60 * 60)
        valkey.client.zadd("{counter}:processes", {f"of-{name}": time.time()})
    with driven(url, rate=60, concurrency=12):
        opened = open_page(url)
        page = opened.page
        for name in NAMES:
            expect(row(page, name)).to_be_visible()
        is_live(page)
        expect(page.locator("#count")).to_have_text("3")
        before = total(page)
        wait_for_points(page, 5)
        assert total(page) > before
        shares = [
            float(one.inner_text().strip().rstrip("%")) for one in page.locator("td.share").all()
        ]
        assert abs(sum(shares) - 100) < 1
        assert min(shares) > 5
        expect(page.locator("#rate")).to_have_text(re.compile(r"^[3-9]\d$"))
        assert max(y for _, y in points(page)) < 240

        opened.may_lose = True  # its own stream may be on the one that is killed
        programs["web-2"].process.kill()
        status = page.get_by_role("status")
        expect(status).to_have_text("Live; no more from web-2")
        expect(row(page, "web-2")).to_have_class(re.compile("silent"))
        expect(row(page, "web-2").locator(".seen")).to_have_text(re.compile(r"^\d+\ss ago$"))
        expect(page.locator("#count")).to_have_text("2")
        for name in ("web-1", "web-3"):
            expect(row(page, name)).not_to_have_class(re.compile("silent"))
        before = total(page)
        wait_for_points(page, len(points(page)) + 3)
        assert total(page) > before
        photograph(page)


def test_without_redis_the_page_says_so_keeps_what_it_has_and_comes_back(
    valkey: Valkey, replicas: Replicas, open_page: Open
) -> None:
    url, _ = replicas
    with driven(url, rate=30, concurrency=6):
        page = open_page(url).page
        is_live(page)
        wait_for_points(page, 3)
        valkey.kill()
        expect(page.get_by_role("status")).to_contain_text("Redis is away")
        expect(page.get_by_role("status")).to_contain_text("Connection refused")
        expect(page.locator("#picture")).to_have_class(re.compile("stale"))
        expect(page.locator("#chart .away")).to_be_visible()
        kept, drawn = total(page), len(points(page))
        assert kept > 0
        assert drawn >= 3
        expect(row(page, "web-1")).to_be_visible()
        page.screenshot(path=SCREENSHOTS / "live-away.png")
        valkey.start()
        is_live(page)
        wait_for_points(page, drawn + 2)
        assert total(page) >= kept
        expect(page.locator("#chart .away")).to_be_visible()  # it is part of the picture now


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the test's own while no server listens on it."""
    with held_port() as held:
        yield held.getsockname()[1]


def test_what_redis_refuses_to_tell_is_named_on_the_page(
    valkey: Valkey, replicas: Replicas, open_page: Open
) -> None:
    url, _ = replicas
    with driven(url, rate=30, concurrency=6):
        page = open_page(url).page
        status = page.get_by_role("status")
        expect(status).to_have_text("Live")
        expect(row(page, "web-1")).to_be_visible()
        for command, said in (
            ("hmget", "Live, but not whole. Redis refuses HMGET: "),
            ("get", "Redis does not let this server read what is counted. This is what it was."),
        ):
            valkey.client.acl_setuser("default", enabled=True, commands=[f"-{command}"])
            expect(status).to_contain_text(said)
            expect(status).to_contain_text(f"'{command}' command")
            valkey.client.acl_setuser("default", enabled=True, commands=[f"+{command}"])
            expect(status).to_have_text("Live")


def test_the_page_comes_back_after_a_restart_of_the_server_and_keeps_its_picture(
    valkey: Valkey, counting: Start, open_page: Open, port: int
) -> None:
    server = counting(f"--redis-url={valkey.url}", f"--port={port}")
    opened = open_page(server.url)
    page = opened.page
    is_live(page)
    server.visits()
    expect(page.locator("#total")).to_have_text("1")
    wait_for_points(page, 4)
    opened.may_lose = True
    server.signal()
    assert server.wait() == 0
    expect(page.get_by_role("status")).to_contain_text("Connection lost")
    expect(page.locator("#picture")).to_have_class(re.compile("stale"))
    assert len(points(page)) >= 4
    expect(page.locator("#total")).to_have_text("1")

    again = counting(f"--redis-url={valkey.url}", f"--port={port}")
    is_live(page)
    again.visits()
    expect(page.locator("#total")).to_have_text("2")
    wait_for_points(page, 6)


def test_the_page_comes_back_when_a_balancer_has_answered_502(
    valkey: Valkey, counting: Start, open_page: Open, port: int
) -> None:
    """After which the browser's own EventSource does not try again."""
    server = counting(f"--redis-url={valkey.url}", f"--port={port}")
    opened = open_page(server.url)
    page = opened.page
    is_live(page)
    page.route("**/live/events", lambda route: route.fulfill(status=502))
    opened.may_lose = True
    server.signal()
    assert server.wait() == 0
    again = counting(f"--redis-url={valkey.url}", f"--port={port}")
    with page.expect_response(lambda answer: answer.status == 502):
        pass
    expect(page.get_by_role("status")).to_contain_text("Connection lost")
    page.unroute("**/live/events")
    is_live(page)
    assert again.process.poll() is None
    opened.complaints = [one for one in opened.complaints if "status of 502" not in one]


def test_a_counter_that_is_set_back_is_shown_and_no_rate_is_negative(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    valkey.client.set("counter", 5_000)
    page = open_page(server.url).page
    expect(page.locator("#total")).to_have_text("5,000")
    wait_for_points(page, 2)
    valkey.client.flushall()
    expect(page.locator("#total")).to_have_text("0")
    server.visits()
    expect(page.locator("#total")).to_have_text("1")
    wait_for_points(page, 5)
    zero = float(page.locator("#chart .grid").first.get_attribute("y1") or 0)
    assert max(y for _, y in points(page)) <= zero + 0.1
    assert "-" not in page.locator("#rate").inner_text()


def test_a_page_opened_later_starts_with_what_others_saw(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    first = open_page(server.url).page
    wait_for_points(first, 4)
    later = open_page(server.url).page
    is_live(later)
    assert len(points(later)) >= 4


def test_a_hostname_that_is_markup_is_shown_as_it_is(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    name = "<img src=x onerror=alert(1)>&amp;"
    server = counting(f"--redis-url={valkey.url}", script=REPLICA, HOSTNAME=name)
    server.visits()
    page = open_page(server.url).page
    header = page.get_by_role("rowheader")
    expect(header).to_have_text(name)
    assert page.locator("tbody img").count() == 0


def test_the_version_stands_beside_the_name(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    url = f"--redis-url={valkey.url}"
    for name, version in (("web-1", "blue"), ("web-2", "v1.4+green@west")):
        server = counting(url, f"--version-label={version}", script=REPLICA, HOSTNAME=name)
        server.visits()
    page = open_page(server.url).page
    expect(row(page, "web-1").locator(".version")).to_have_text("blue")
    expect(row(page, "web-2").locator(".version")).to_have_text("v1.4+green@west")


def test_the_labels_stand_below_the_name(valkey: Valkey, counting: Start, open_page: Open) -> None:
    url, long = f"--redis-url={valkey.url}", "x" * 128
    for name, labels in (("web-1", "zone=eu-1,node=<b>n7</b>"), ("web-2", f"node={long}")):
        server = counting(url, f"--labels={labels}", script=REPLICA, HOSTNAME=name)
        server.visits()
    page = open_page(server.url).page
    expect(row(page, "web-1").locator(".labels")).to_have_text("zone=eu-1, node=<b>n7</b>")
    expect(row(page, "web-2").locator(".labels")).to_have_text(f"node={long}")
    page.set_viewport_size({"width": 320, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_replica_that_is_made_sick_is_marked(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    flags = (f"--redis-url={valkey.url}", "--faults")
    server = counting(*flags, "--fault-rate=1", script=REPLICA, HOSTNAME="web-1")
    counting(*flags, script=REPLICA, HOSTNAME="web-2").visits()
    page = open_page(server.url).page
    expect(row(page, "web-1").locator(".faults")).to_have_text("sick")
    expect(row(page, "web-2").locator(".faults")).to_have_text("")


def test_a_single_idle_replica_is_no_fallen_one(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}", script=REPLICA, HOSTNAME="web-1")
    page = open_page(server.url).page
    expect(page.locator("#none")).to_be_visible()
    is_live(page)
    server.visits()
    expect(page.locator("#none")).to_be_hidden()
    expect(row(page, "web-1").locator(".seen")).to_have_text(re.compile(r"^([6-9]|\d\d)\ss ago$"))
    expect(row(page, "web-1")).not_to_have_class(re.compile("silent"))
    is_live(page)
    expect(row(page, "web-1")).to_contain_text("100%")


def test_a_screen_reader_and_the_keyboard_find_everything(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}", script=REPLICA, HOSTNAME="web-1")
    server.visits()
    page = open_page(server.url).page
    is_live(page)
    table = page.get_by_role("table", name="Replicas, by the visits that each has counted")
    heads = [one.inner_text() for one in table.get_by_role("columnheader").all()]
    assert heads == ["Hostname", "Visits", "Share", "Per second", "Last seen"]
    expect(table.get_by_role("rowheader", name="web-1")).to_be_visible()
    chart = page.get_by_role("img", name="Visits per second, the last five minutes")
    expect(chart).to_have_accessible_description(re.compile("^Now .* a second; at most "))
    expect(page.get_by_role("heading", level=1)).to_have_text("friendlyhello")
    assert page.evaluate("() => document.documentElement.lang") == "en"
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="the greeting")).to_be_focused()

    # What is spoken is written when it changes, and not each second; rows stay where they are.
    page.evaluate(
        """() => {
            globalThis.spoken = 0;
            const count = (changes) => { globalThis.spoken += changes.length; };
            const what = { childList: true, characterData: true, subtree: true };
            new MutationObserver(count).observe(document.querySelector("[role=status]"), what);
            new MutationObserver(count).observe(document.querySelector("#replicas"),
              { childList: true });
        }"""
    )
    drawn = len(points(page))
    wait_for_points(page, drawn + 3)
    assert page.evaluate("() => globalThis.spoken") == 0


def test_nothing_moves_for_who_prefers_no_motion(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    server.visits()
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = open_page(server.url, reduced_motion=motion).page
        bar = page.locator("tbody .bar > span")
        expect(bar).to_be_attached()
        seconds = bar.evaluate("(one) => getComputedStyle(one).transitionDuration")
        assert (seconds != "0s") is moves
