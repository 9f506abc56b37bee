"""The live page, as a person sees it who opens it in a browser."""

import re
import time
from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser import live
from tests.browser.live import Open
from tests.support.driven import driven
from tests.support.program import Program, Start
from tests.support.valkey import Valkey

Replicas = tuple[str, dict[str, Program]]


def test_without_redis_the_page_says_so_keeps_what_it_has_and_comes_back(
    valkey: Valkey, replicas: Replicas, open_page: Open
) -> None:
    url, _ = replicas
    with driven(url, rate=30, concurrency=6):
        page = open_page(url).page
        live.is_live(page)
        live.wait_for_steps(page, 3)
        valkey.kill()
        expect(live.status(page)).to_contain_text("Redis is away")
        expect(live.status(page)).to_contain_text("Connection refused")
        expect(page.locator("#picture")).to_have_class(re.compile("stale"))
        expect(page.locator("#chart .away rect")).to_be_visible()
        kept, drawn = live.total(page), live.steps(page)
        assert kept > 0
        assert drawn >= 3
        expect(live.row(page, "web-1")).to_be_visible()
        live.wait_for_draws(page, 4)
        live.photograph(page, "redis-is-away")
        valkey.start()
        live.is_live(page)
        live.wait_for_steps(page, drawn + 2)
        assert live.total(page) >= kept
        live.wait_for_marks(page, "Redis was away for")
        expect(page.locator("#chart .away rect")).to_have_count(1)  # what replicas saw is the same
        live.wait_for_steps(page, drawn + 5)
        live.photograph(page, "redis-was-away")

        # What it refuses to tell is named.
        for command, said in (
            ("hmget", "Live, but not complete. Redis refuses HMGET: "),
            ("get", "Redis does not let this server read the figures. These are the last ones."),
        ):
            valkey.client.acl_setuser("default", enabled=True, commands=[f"-{command}"])
            expect(live.status(page)).to_contain_text(said)
            expect(live.status(page)).to_contain_text(f"'{command}' command")
            valkey.client.acl_setuser("default", enabled=True, commands=[f"+{command}"])
            expect(live.status(page)).to_have_text("Live")


def test_the_page_comes_back_after_a_restart_behind_a_balancer_and_keeps_its_picture(
    restartable: Callable[[], Program], open_page: Open
) -> None:
    """The balancer answers 502, after which the browser's own EventSource does not try again."""
    server = restartable()
    opened = open_page(server.url)
    page = opened.page
    live.is_live(page)
    server.visits()
    expect(page.locator("#total")).to_have_text("1")
    live.wait_for_steps(page, 1)
    opened.may_lose = True
    page.route("**/live/events*", lambda route: route.fulfill(status=502))
    server.signal()
    assert server.wait() == 0
    with page.expect_response(lambda answer: answer.status == 502):
        pass
    expect(live.status(page)).to_contain_text("Connection lost")
    expect(page.locator("#picture")).to_have_class(re.compile("stale"))
    assert live.steps(page) >= 1
    expect(page.locator("#total")).to_have_text("1")

    again = restartable()
    page.unroute("**/live/events*")
    live.is_live(page)
    again.visits()
    expect(page.locator("#total")).to_have_text("2")
    live.wait_for_steps(page, 1)
    opened.forgive("status of 502")


MARKUP = "<img src=x onerror=alert(1)>&amp;"


def test_a_row_shows_name_version_labels_and_faults_as_they_are(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    label = "zone=eu-1,node=<b>n7</b>"
    flags = ("--faults", "--fault-rate=1", f"--labels={label}")
    url = f"--redis-url={valkey.url}"
    # One that is sick says so each second, so that the others would soon count as silent.
    patient = {"version": "v1.4+green@west", "SILENT_AFTER": "3600"}
    server = live.start_replica(counting, MARKUP, url, *flags, **patient)
    leaving = live.start_replica(counting, "web-2", url, "--drain-delay=30")
    leaving.visits()
    # A newer release writes kinds of faults that are not known yet, in a rolling update.
    live.write_replica(
        valkey, "web-3", faults="constructor,unseen,sick", labels=f"node={'x' * 128}"
    )
    page = open_page(server.url).page
    live.is_live(page)
    for name, state, version, labels in (
        (MARKUP, "sick", "v1.4+green@west", label.replace(",", ", ")),
        ("web-2", "", "", ""),
        ("web-3", "constructor, unseen, sick", "", f"node={'x' * 128}"),
    ):
        for part, text in ((".state", state), (".version", version), (".labels", labels)):
            if text or part == ".state":
                expect(live.row(page, name).locator(part)).to_have_text(text)
    assert page.locator("tbody img").count() == 0
    expect(live.row(page, "web-3")).to_have_class("sick")  # nor is it a class of the page's own
    page.set_viewport_size({"width": 320, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    leaving.signal()
    expect(live.row(page, "web-2").locator(".state")).to_have_text("draining")
    leaving.process.kill()


def test_a_name_that_every_object_of_javascript_has_is_a_name_as_any_other(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    flag = f"--redis-url={valkey.url}"
    server = live.start_replica(counting, "toString", flag, version="constructor")
    now = int(time.time())
    moment = f"{now // 2 * 2 - 10} __proto__=40 constructor=60"
    valkey.client.hset("{counter}:last:5m", str((now // 2 - 5) % 150), moment)
    for name in ("__proto__", "hasOwnProperty"):
        live.write_replica(valkey, name, version=name, labels=f"{name}={name}")
    page = open_page(server.url).page
    live.is_live(page)
    for _ in range(3):
        server.visits()
        live.wait_for_draws(page, 1)
    legend = page.locator("#legend li")
    expect(legend).to_have_text([re.compile(r"^constructor "), re.compile(r"^__proto__ ")])
    for one in legend.all_inner_texts():
        assert re.search(r" \d+(\.\d)?%$", one), one
    assert "NaN" not in page.locator("#chart").inner_html()
    drawn = live.heights(page)  # 0 where a step has a hundredth of a second with a visit
    assert max(drawn) > min(drawn) >= 0
    live.wait_for_marks(page, "toString came", "hasOwnProperty came")
    expect(live.row(page, "__proto__").locator(".labels")).to_have_text("__proto__=__proto__")


def test_a_single_idle_replica_is_no_fallen_one_and_a_counter_set_back_gives_no_negative_rate(
    valkey: Valkey, server: Program, open_page: Open
) -> None:
    page = open_page(server.url).page
    expect(page.locator("#none")).to_be_visible()
    live.is_live(page)
    server.visits()
    expect(page.locator("#none")).to_be_hidden()
    expect(live.row(page, "web-1").locator(".seen")).to_have_text(
        re.compile(r"^([6-9]|\d\d)s ago$")
    )
    expect(live.row(page, "web-1")).not_to_have_class(re.compile("silent"))
    live.is_live(page)
    expect(live.row(page, "web-1")).to_contain_text("100%")

    valkey.client.set("counter", 5_000)
    expect(page.locator("#total")).to_have_text("5,000")
    valkey.client.flushall()
    expect(page.locator("#total")).to_have_text("0")
    server.visits()
    expect(page.locator("#total")).to_have_text("1")
    live.wait_for_steps(page, 1)
    assert min(live.heights(page)) >= 0
    assert "-" not in page.locator("#rate").inner_text()


def test_a_screen_reader_and_the_keyboard_find_everything(server: Program, open_page: Open) -> None:
    server.visits()
    page = open_page(server.url).page
    live.is_live(page)
    table = page.get_by_role("table", name="Replicas, and the visits that each has counted")
    heads = [one.inner_text() for one in table.get_by_role("columnheader").all()]
    assert heads == ["Hostname", "State", "Visits", "Share", "Per second", "Last seen"]
    expect(table.get_by_role("rowheader", name="web-1")).to_be_visible()
    chart = page.get_by_role("img", name="Visits per second, the last five minutes")
    expect(chart).to_have_accessible_description(re.compile("^Now .* a second; at most "))
    expect(page.get_by_role("heading", level=1)).to_have_text("friendlyhello")
    assert page.evaluate("() => document.documentElement.lang") == "en"
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("() => document.activeElement.innerText.trim().split('\\n')[0]")
        )
    assert reached[:4] == ["5 minutes", "1 hour", "1 day", "Hold to send visits"]
    assert reached[4:-2] == heads
    assert reached[-2].endswith(live.happened(page)[0])  # the list, which may have to be scrolled
    assert reached[-1] == "the greeting"

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
    live.wait_for_draws(page, 3)
    assert page.evaluate("() => globalThis.spoken") == 0


def test_nothing_moves_for_who_prefers_no_motion_and_light_and_dark_change_at_once(
    server: Program, open_page: Open
) -> None:
    server.visits()
    for motion, moves in (("reduce", False), ("no-preference", True)):
        page = open_page(server.url, reduced_motion=motion).page
        bar = page.locator("tbody .bar")
        expect(bar).to_be_attached()
        seconds = bar.evaluate("(one) => getComputedStyle(one).transitionDuration")
        assert (seconds != "0s") is moves
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert page.evaluate(f"() => matchMedia('(prefers-color-scheme: {scheme})').matches")
        fading = page.evaluate(
            "() => document.getAnimations().map((one) => one.transitionProperty)"
            ".filter((name) => !['width', 'filter'].includes(name))"
        )
        assert not fading, "text that fades from one to the other cannot be read meanwhile"
