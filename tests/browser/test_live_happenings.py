"""What the live page makes of a deployment: each scenario is asserted, and photographed."""

import re
from statistics import median

import pytest
from playwright.sync_api import expect

from tests.browser import live
from tests.browser.live import Open
from tests.support.driven import Driven, driven
from tests.support.program import Program, Start
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

Replicas = tuple[str, dict[str, Program]]


def load_for(load: Driven, seconds: float) -> None:
    count = len(load.visits) + seconds * 40
    wait_until(lambda: len(load.visits) >= count, pause=0.1)


def test_three_replicas_under_load_share_the_visits_and_one_that_is_killed_falls_out(
    valkey: Valkey, replicas: Replicas, open_page: Open
) -> None:
    url, programs = replicas
    valkey.client.incrby("counter", 12_000_000)  # large numbers fit a phone, too
    for name in live.NAMES:
        live.write_replica(valkey, name, visits="4000000")
    with driven(url, rate=60, concurrency=12) as load:
        load_for(load, 12)
        opened = open_page(url)  # late: it shows what was before, whether anybody watched or not
        page = opened.page
        for name in live.NAMES:
            expect(live.row(page, name)).to_be_visible()
        live.is_live(page)
        live.wait_for_steps(page, 4)

        def stays_up() -> bool:  # the load may stall for a second, and catch up in the next
            live.wait_for_draws(page, 1)
            drawn = live.heights(page)
            return drawn[-1] > 0.7 * median(drawn) > 5

        # The step under way is no fall. It takes two seconds, and is drawn each second.
        assert any(all(stays_up() for _ in range(4)) for _ in range(10))
        expect(page.locator("#count")).to_have_text("3")
        before = live.total(page)
        live.wait_for_steps(page, live.steps(page) + 2)
        assert live.total(page) > before
        parts = [float(one.rstrip("%")) for one in page.locator("td.share").all_inner_texts()]
        assert abs(sum(parts) - 100) < 1
        assert min(parts) > 5
        expect(page.locator("#rate")).to_have_text(re.compile(r"^[3-9]\d$"))

        opened.may_lose = True  # its own stream may be on the one that is killed
        programs["web-2"].process.kill()
        expect(live.status(page)).to_have_text("Live; silent: web-2")
        expect(live.row(page, "web-2")).to_have_class("silent")
        expect(live.row(page, "web-2").locator(".state")).to_have_text("silent")
        expect(live.row(page, "web-2").locator(".seen")).to_have_text(re.compile(r"^\d+s ago$"))
        expect(page.locator("#count")).to_have_text("2")
        for name in ("web-1", "web-3"):
            expect(live.row(page, name)).to_have_class("")
        live.wait_for_marks(page, "web-2 fell silent")
        expect(page.locator("#chart .silent text")).to_have_text("web-2")
        before = live.total(page)
        live.wait_for_steps(page, live.steps(page) + 3)
        assert live.total(page) > before
        live.photograph(page, "killed")


def test_a_canary_of_a_tenth_is_a_layer_with_its_share(
    valkey: Valkey, program: Start, open_page: Open
) -> None:
    flag = f"--redis-url={valkey.url}"
    first = [live.start_replica(program, name, flag, version="1.0") for name in ("web-1", "web-2")]
    one, two = (server.port for server in first)
    with Proxy([one, two]) as balancer:
        url = f"http://127.0.0.1:{balancer.port}"
        with driven(url, rate=40, concurrency=6, keep_alive=False) as load:
            load_for(load, 6)
            last = live.start_replica(program, "web-3", flag, version="1.1")
            balancer.targets = [one] * 5 + [two] * 4 + [last.port]
            opened = open_page(url)
            opened.may_lose = True  # at the end the balancer goes first
            page = opened.page
            live.is_live(page)
            live.wait_for_marks(page, "1.1 first seen", "web-3 came (1.1)")
            expect(page.locator("#legend b")).to_have_text(["1.0", "1.1"])
            load_for(load, 14)
            wait_until(lambda: 4 < live.shares(page)["1.1"] < 12, pause=0.1)
            assert sum(live.shares(page).values()) == pytest.approx(100, abs=0.3)
            expect(live.row(page, "web-3").locator(".version")).to_have_text("1.1")
            expect(page.locator("#chart text", has_text="1.1 first seen")).to_be_visible()
            # What is not told by colour alone: the order, a pattern, a name.
            fills = page.locator("#chart .line").evaluate_all(
                "(all) => all.map((one) => one.previousSibling.getAttribute('fill'))"
            )
            assert fills == ["url(#pattern-1)", "url(#pattern-2)"]
            # The last layer is nowhere in a second without a visit of a version.
            wait_until(lambda: live.stacked(page) == [[True, False], [False, True]], pause=0.1)
            live.photograph(page, "canary")
            # Another replica and another screen give versions the same colours.
            for server in (first[0], last):
                legend = open_page(server.url).page.locator("#legend li")
                expect(legend).to_have_count(2)
                coloured = legend.evaluate_all(
                    "(all) => all.map((one) => [one.innerText.split(' ')[0],"
                    " one.querySelector('path').getAttribute('fill')])"
                )
                assert coloured == [["1.0", "url(#pattern-1)"], ["1.1", "url(#pattern-2)"]]


def test_a_rolling_update_is_a_picture(
    valkey: Valkey, program: Start, open_page: Open, places: list[str]
) -> None:
    flag = f"--redis-url={valkey.url}"
    old = [
        live.start_replica(program, name, flag, place, version="1.0")
        for name, place in zip(live.NAMES, places, strict=True)
    ]
    with Proxy([one.port for one in old]) as balancer:
        url = f"http://127.0.0.1:{balancer.port}"
        with driven(url, rate=40, concurrency=6, keep_alive=False) as load:
            load_for(load, 5)
            opened = open_page(url)
            opened.may_lose = True  # its stream ends with each replica that has it
            page = opened.page
            live.is_live(page)
            for number, (server, place) in enumerate(zip(old, places, strict=True), 4):
                server.signal()
                assert server.wait() == 0
                live.start_replica(program, f"web-{number}", flag, place, version="1.1")
                load_for(load, 3)
            live.wait_for_marks(page, *(f"web-{one} has gone" for one in (1, 2, 3)))
            live.wait_for_marks(page, *(f"web-{one} came (1.1)" for one in (4, 5, 6)))
            live.is_live(page)  # nobody is missed who said goodbye
            expect(page.locator("#count")).to_have_text("3")
            expect(page.locator("#gone th")).to_have_text(["web-1", "web-2", "web-3"])
            expect(page.locator("#replicas th")).to_have_text(["web-4", "web-5", "web-6"])
            expect(live.row(page, "web-1").locator(".state")).to_have_text("gone")
            load_for(load, 6)
            expect(page.locator("#legend b")).to_have_text(["1.0", "1.1"])
            order = [one for one in reversed(live.happened(page)) if "web-" in one][-6:]
            assert [one.split()[0] for one in order] == [
                *("web-1", "web-4", "web-2", "web-5", "web-3", "web-6"),
            ]
            live.photograph(page, "rolling-update")


def test_a_table_of_a_hundred_replicas_is_sorted_by_keyboard_and_stays_so(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    for one in range(1, 101):
        own = {"visits": str(1000 + one), "version": f"1.{one % 2}"}
        live.write_replica(valkey, f"web-{one}", **own, labels=f"node=n{one % 7},zone=eu-{one % 3}")
    valkey.client.set("counter", 105_050)
    page = open_page(counting(f"--redis-url={valkey.url}").url).page
    live.is_live(page)
    expect(page.locator("#count")).to_have_text("100")
    assert live.names(page) == [f"web-{one}" for one in range(1, 101)]

    def sorting() -> tuple[str, str | None]:
        [one] = page.locator("thead th[aria-sort]").all()
        return one.inner_text().split()[0], one.get_attribute("aria-sort")

    assert sorting() == ("Hostname", "ascending")
    for head, order, first in (
        ("Visits", "descending", ["web-100", "web-99"]),
        ("Visits", "ascending", ["web-1", "web-2"]),
        ("Version", "ascending", ["web-2", "web-4", "web-6"]),  # alike ones by their names
        ("Labels", "ascending", ["web-21", "web-42"]),
    ):
        page.get_by_role("button", name=head, exact=True).focus()
        page.keyboard.press("Enter")
        assert sorting() == (head, order)
        assert live.names(page)[: len(first)] == first
    live.wait_for_draws(page, 3)
    assert live.names(page)[:2] == ["web-21", "web-42"]
    expect(page.get_by_role("button", name="Labels", exact=True)).to_be_focused()
    page.get_by_role("button", name="Hostname", exact=True).click()
    assert live.names(page)[:2] == ["web-1", "web-2"]

    live.row(page, "web-90").scroll_into_view_if_needed()
    expect(page.get_by_role("columnheader", name="Hostname")).to_be_in_viewport()
    live.photograph(page, "hundred")


def test_a_longer_view_is_one_click_away_and_stays_in_the_address(
    server: Program, open_page: Open
) -> None:
    server.visits()
    page = open_page(server.url).page
    live.is_live(page)

    def is_shown(link: str) -> None:
        live.is_live(page)
        expect(page.get_by_role("link", name=link)).to_have_attribute("aria-current", "page")

    is_shown("5 minutes")
    for number, (last, title) in enumerate((("1h", "hour"), ("1d", "day")), 2):
        page.get_by_role("link", name=f"1 {title}").click()
        expect(page).to_have_url(f"{server.url}/live?last={last}")
        is_shown(f"1 {title}")
        expect(page.get_by_role("img", name=f"Visits per second, the last {title}")).to_be_visible()
        live.wait_for_steps(page, 1)
        server.visits()
        expect(page.locator("#total")).to_have_text(str(number))
        page.reload()
        is_shown(f"1 {title}")
        live.wait_for_steps(page, 1)
