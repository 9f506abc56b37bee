"""What the live page makes of a deployment: each scenario is asserted, and photographed."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NAMES
from tests.browser.live import (
    Open,
    Start,
    happened,
    heights,
    is_live,
    names,
    photograph,
    row,
    shares,
    stacked,
    start_replica,
    steps,
    total,
    wait_for_draws,
    wait_for_marks,
    wait_for_steps,
    wait_until_drawn,
)
from tests.support.driven import Driven, driven
from tests.support.program import Program
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

Replicas = tuple[str, dict[str, Program]]


def test_three_replicas_under_load_share_the_visits_and_one_that_is_killed_falls_out(
    valkey: Valkey, replicas: Replicas, open_page: Open
) -> None:
    url, programs = replicas
    valkey.client.incrby("counter", 12_000_000)  # large numbers fit a phone, too
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
        wait_for_steps(page, 4)
        assert total(page) > before
        parts = [float(one.rstrip("%")) for one in page.locator("td.share").all_inner_texts()]
        assert abs(sum(parts) - 100) < 1
        assert min(parts) > 5
        expect(page.locator("#rate")).to_have_text(re.compile(r"^[3-9]\d$"))
        assert max(heights(page)) > 20

        opened.may_lose = True  # its own stream may be on the one that is killed
        programs["web-2"].process.kill()
        expect(page.get_by_role("status")).to_have_text("Live; nothing more from web-2")
        expect(row(page, "web-2")).to_have_class("silent")
        expect(row(page, "web-2").locator(".state")).to_have_text("silent")
        expect(row(page, "web-2").locator(".seen")).to_have_text(re.compile(r"^\d+s ago$"))
        expect(page.locator("#count")).to_have_text("2")
        for name in ("web-1", "web-3"):
            expect(row(page, name)).to_have_class("")
        wait_for_marks(page, "web-2 fell silent")
        expect(page.locator("#chart .silent text")).to_have_text("web-2")
        before = total(page)
        wait_for_steps(page, steps(page) + 3)
        assert total(page) > before
        photograph(page, "killed")


def test_a_page_that_is_opened_late_shows_what_was_before(
    replicas: Replicas, open_page: Open
) -> None:
    """Whether anybody watched or not; and the step that is under way is no fall."""
    url, _ = replicas
    with driven(url, rate=40, concurrency=6) as load:
        load_for(load, 12)
        page = open_page(url).page
        is_live(page)
        assert steps(page) >= 5
        assert max(heights(page)) > 20
        for _ in range(4):
            wait_for_draws(page, 1)
            drawn = heights(page)
            assert drawn[-1] > 0.5 * max(drawn)


def load_for(load: Driven, seconds: float) -> None:
    """Let visitors come for some seconds of their own."""
    count = len(load.visits) + seconds * 40
    while len(load.visits) < count:
        time.sleep(0.1)


@contextmanager
def canary(valkey: Valkey, program: Start) -> Iterator[tuple[str, list[Program]]]:
    """Two replicas of one version, and one of another, which gets a tenth of the visits."""
    flag = f"--redis-url={valkey.url}"
    first = [start_replica(program, name, flag, version="1.0") for name in ("web-1", "web-2")]
    with Proxy([one.port for one in first] * 5) as balancer:
        url = f"http://127.0.0.1:{balancer.port}"
        with driven(url, rate=40, concurrency=6, keep_alive=False) as load:
            load_for(load, 6)
    last = start_replica(program, "web-3", flag, version="1.1")
    ports = [first[0].port] * 5 + [first[1].port] * 4 + [last.port]
    with Proxy(ports) as balancer:
        yield f"http://127.0.0.1:{balancer.port}", [*first, last]


def test_a_canary_of_a_tenth_is_a_layer_with_its_share(
    valkey: Valkey, program: Start, open_page: Open
) -> None:
    with (
        canary(valkey, program) as (url, _),
        driven(url, rate=40, concurrency=6, keep_alive=False) as load,
    ):
        opened = open_page(url)
        opened.may_lose = True  # at the end the balancer goes first
        page = opened.page
        is_live(page)
        wait_for_marks(page, "1.1 first seen", "web-3 came (1.1)")
        assert list(shares(page)) == ["1.0", "1.1"]
        load_for(load, 14)
        wait_until_drawn(page, lambda: 4 < shares(page)["1.1"] < 12, "no canary of a tenth")
        assert sum(shares(page).values()) == pytest.approx(100, abs=0.3)
        expect(row(page, "web-3").locator(".version")).to_have_text("1.1")
        expect(page.locator("#chart text", has_text="1.1 first seen")).to_be_visible()
        # What is not told by colour alone: the order, a pattern, a name.
        fills = page.locator("#chart .line").evaluate_all(
            "(all) => all.map((one) => one.previousSibling.getAttribute('fill'))"
        )
        assert fills == ["url(#pattern-1)", "url(#pattern-2)"]
        assert stacked(page) == [[True, False], [False, True]]
        photograph(page, "canary")


def test_another_replica_and_another_screen_give_versions_the_same_colours(
    valkey: Valkey, program: Start, open_page: Open
) -> None:
    with canary(valkey, program) as (url, servers):
        with driven(url, rate=40, concurrency=6, keep_alive=False):
            colours = []
            for server in servers[::2]:
                page = open_page(server.url).page
                wait_for_marks(page, "1.1 first seen")
                expect(page.locator("#legend li")).to_have_count(2)
                colours.append(
                    page.locator("#legend li").evaluate_all(
                        "(all) => all.map((one) =>"
                        " [one.innerText, one.querySelector('path').getAttribute('fill')])"
                    )
                )
        for found in colours:
            assert [(text.split()[0], fill) for text, fill in found] == [
                ("1.0", "url(#pattern-1)"),
                ("1.1", "url(#pattern-2)"),
            ]


def test_a_rolling_update_is_a_picture(valkey: Valkey, program: Start, open_page: Open) -> None:
    flag = f"--redis-url={valkey.url}"
    old = [start_replica(program, name, flag, version="1.0") for name in NAMES]
    with Proxy([one.port for one in old]) as balancer:
        url = f"http://127.0.0.1:{balancer.port}"
        with driven(url, rate=40, concurrency=6, keep_alive=False) as load:
            load_for(load, 5)
            opened = open_page(url)
            opened.may_lose = True  # its stream ends with each replica that has it
            page = opened.page
            is_live(page)
            for number, server in enumerate(old, 4):
                server.signal()
                assert server.wait() == 0
                port = f"--port={server.port}"
                start_replica(program, f"web-{number}", flag, port, version="1.1")
                load_for(load, 3)
            wait_for_marks(page, *(f"web-{one} has gone" for one in (1, 2, 3)))
            wait_for_marks(page, *(f"web-{one} came (1.1)" for one in (4, 5, 6)))
            is_live(page)  # nobody is missed who said goodbye
            expect(page.locator("#count")).to_have_text("3")
            expect(page.locator("#gone th")).to_have_text(["web-1", "web-2", "web-3"])
            expect(page.locator("#replicas th")).to_have_text(["web-4", "web-5", "web-6"])
            expect(row(page, "web-1").locator(".state")).to_have_text("gone")
            load_for(load, 6)
            assert shares(page).keys() == {"1.0", "1.1"}
            order = [one for one in reversed(happened(page)) if "web-" in one][-6:]
            assert [one.split()[0] for one in order] == [
                *("web-1", "web-4", "web-2", "web-5", "web-3", "web-6"),
            ]
            photograph(page, "rolling-update")


def hundred(valkey: Valkey) -> None:
    """Write what a hundred replicas of two versions would."""
    pipeline = valkey.client.pipeline()
    for one in range(1, 101):
        key = f"{{counter}}:process:id-{one}"
        own = {"hostname": f"web-{one}", "visits": 1000 + one, "version": f"1.{one % 2}"}
        place = {"labels": f"node=n{one % 7},zone=eu-{one % 3}"}
        pipeline.hset(key, mapping=own | place)  # type: ignore[arg-type]
        pipeline.expire(key, 24 * 60 * 60)  # by which it is told when it was seen
        pipeline.zadd("{counter}:processes", {f"id-{one}": time.time()})
    pipeline.set("counter", 105_050)
    pipeline.execute()


def test_a_table_of_a_hundred_replicas_is_sorted_by_keyboard_and_stays_so(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    hundred(valkey)
    watched = counting(f"--redis-url={valkey.url}")
    page = open_page(watched.url).page
    is_live(page)
    expect(page.locator("#count")).to_have_text("100")
    assert names(page) == [f"web-{one}" for one in range(1, 101)]

    def press(head: str) -> None:
        page.get_by_role("button", name=head, exact=True).focus()
        page.keyboard.press("Enter")

    def sorting() -> dict[str, str]:
        return {
            one.inner_text().split()[0]: one.get_attribute("aria-sort") or ""
            for one in page.locator("thead th[aria-sort]").all()
        }

    assert sorting() == {"Hostname": "ascending"}
    press("Visits")
    assert sorting() == {"Visits": "descending"}
    assert names(page)[:2] == ["web-100", "web-99"]
    press("Visits")
    assert sorting() == {"Visits": "ascending"}
    assert names(page)[:2] == ["web-1", "web-2"]
    press("Version")
    assert names(page)[:3] == ["web-2", "web-4", "web-6"]  # alike ones by their names
    press("Labels")
    assert names(page)[:2] == ["web-21", "web-42"]
    wait_for_draws(page, 3)
    assert names(page)[:2] == ["web-21", "web-42"]
    expect(page.get_by_role("button", name="Labels", exact=True)).to_be_focused()
    page.get_by_role("button", name="Hostname", exact=True).click()
    assert names(page)[:2] == ["web-1", "web-2"]

    row(page, "web-90").scroll_into_view_if_needed()
    expect(page.get_by_role("columnheader", name="Hostname")).to_be_in_viewport()
    photograph(page, "hundred")


def test_faults_and_a_replica_that_drains_are_named(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    flags = (f"--redis-url={valkey.url}", "--faults")
    sick = start_replica(counting, "web-1", *flags, "--fault-rate=1")
    leaving = start_replica(counting, "web-2", *flags, "--drain-delay=30")
    leaving.visits()
    page = open_page(sick.url).page
    expect(row(page, "web-1").locator(".state")).to_have_text("sick")
    expect(row(page, "web-2").locator(".state")).to_have_text("")
    leaving.signal()
    expect(row(page, "web-2").locator(".state")).to_have_text("draining")
    leaving.signal()
    leaving.process.kill()


@pytest.mark.parametrize(("last", "title"), [("1h", "hour"), ("1d", "day")])
def test_a_longer_view_is_one_click_away_and_stays_in_the_address(
    last: str, title: str, valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = start_replica(counting, "web-1", f"--redis-url={valkey.url}")
    server.visits()
    page = open_page(server.url).page
    is_live(page)
    expect(page.get_by_role("link", name="5 minutes")).to_have_attribute("aria-current", "page")
    page.get_by_role("link", name=f"1 {title}").click()
    expect(page).to_have_url(f"{server.url}/live?last={last}")
    expect(page.get_by_role("link", name=f"1 {title}")).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("img", name=f"Visits per second, the last {title}")).to_be_visible()
    is_live(page)
    wait_for_steps(page, 1)
    server.visits()
    expect(page.locator("#total")).to_have_text("2")
    page.reload()
    is_live(page)
    expect(page.get_by_role("link", name=f"1 {title}")).to_have_attribute("aria-current", "page")
    wait_for_steps(page, 1)
