"""The live page, as a person sees it who opens it in a browser."""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import REPLICA
from tests.browser.live import (
    Open,
    Start,
    happened,
    heights,
    is_live,
    photograph,
    row,
    steps,
    total,
    wait_for_draws,
    wait_for_marks,
    wait_for_steps,
)
from tests.support.driven import driven
from tests.support.ports import held_port
from tests.support.program import Program
from tests.support.valkey import Valkey

Replicas = tuple[str, dict[str, Program]]


def test_without_redis_the_page_says_so_keeps_what_it_has_and_comes_back(
    valkey: Valkey, replicas: Replicas, open_page: Open
) -> None:
    url, _ = replicas
    with driven(url, rate=30, concurrency=6):
        page = open_page(url).page
        is_live(page)
        wait_for_steps(page, 3)
        valkey.kill()
        status = page.get_by_role("status")
        expect(status).to_contain_text("Redis is away")
        expect(status).to_contain_text("Connection refused")
        expect(page.locator("#picture")).to_have_class(re.compile("stale"))
        expect(page.locator("#chart .away rect")).to_be_visible()
        kept, drawn = total(page), steps(page)
        assert kept > 0
        assert drawn >= 3
        expect(row(page, "web-1")).to_be_visible()
        wait_for_draws(page, 4)
        photograph(page, "redis-is-away")
        valkey.start()
        is_live(page)
        wait_for_steps(page, drawn + 2)
        assert total(page) >= kept
        wait_for_marks(page, "Redis was away for")
        expect(page.locator("#chart .away rect")).to_have_count(1)  # what replicas saw is the same
        wait_for_steps(page, drawn + 5)
        photograph(page, "redis-was-away")


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
            ("hmget", "Live, but not complete. Redis refuses HMGET: "),
            ("get", "Redis does not let this server read the figures. These are the last ones."),
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
    wait_for_steps(page, 1)
    opened.may_lose = True
    server.signal()
    assert server.wait() == 0
    expect(page.get_by_role("status")).to_contain_text("Connection lost")
    expect(page.locator("#picture")).to_have_class(re.compile("stale"))
    assert steps(page) >= 1
    expect(page.locator("#total")).to_have_text("1")

    again = counting(f"--redis-url={valkey.url}", f"--port={port}")
    is_live(page)
    again.visits()
    expect(page.locator("#total")).to_have_text("2")
    wait_for_steps(page, 1)


def test_the_page_comes_back_when_a_balancer_has_answered_502(
    valkey: Valkey, counting: Start, open_page: Open, port: int
) -> None:
    """After which the browser's own EventSource does not try again."""
    server = counting(f"--redis-url={valkey.url}", f"--port={port}")
    opened = open_page(server.url)
    page = opened.page
    is_live(page)
    page.route("**/live/events*", lambda route: route.fulfill(status=502))
    opened.may_lose = True
    server.signal()
    assert server.wait() == 0
    again = counting(f"--redis-url={valkey.url}", f"--port={port}")
    with page.expect_response(lambda answer: answer.status == 502):
        pass
    expect(page.get_by_role("status")).to_contain_text("Connection lost")
    page.unroute("**/live/events*")
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
    valkey.client.flushall()
    expect(page.locator("#total")).to_have_text("0")
    server.visits()
    expect(page.locator("#total")).to_have_text("1")
    wait_for_steps(page, 1)
    assert min(heights(page)) >= 0
    assert "-" not in page.locator("#rate").inner_text()


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
    expect(row(page, "web-1").locator(".state")).to_have_text("sick")
    expect(row(page, "web-2").locator(".state")).to_have_text("")


def test_a_kind_of_fault_that_is_not_known_yet_is_shown_by_its_word(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    """A newer release writes some in a rolling update."""
    server = counting(f"--redis-url={valkey.url}", script=REPLICA, HOSTNAME="web-1")
    server.visits()
    write_replica(valkey, "web-2", faults="constructor,unseen,sick")
    page = open_page(server.url).page
    is_live(page)
    expect(row(page, "web-2").locator(".state")).to_have_text("constructor, unseen, sick")
    expect(row(page, "web-2")).to_have_class("sick")  # nor is it a class of the page's own
    expect(row(page, "web-1").locator(".state")).to_have_text("")


def test_a_name_that_every_object_of_javascript_has_is_a_name_as_any_other(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    flags = (f"--redis-url={valkey.url}", "--version-label=constructor")
    server = counting(*flags, script=REPLICA, HOSTNAME="toString")
    now = int(time.time())
    moment = f"{now // 2 * 2 - 10} __proto__=40 constructor=60"
    valkey.client.hset("{counter}:last:5m", str((now // 2 - 5) % 150), moment)
    for name in ("__proto__", "hasOwnProperty"):
        write_replica(valkey, name, version=name, labels=f"{name}={name}")
    page = open_page(server.url).page
    is_live(page)
    for _ in range(3):
        server.visits()
        wait_for_draws(page, 1)
    legend = page.locator("#legend li")
    expect(legend).to_have_text([re.compile(r"^constructor "), re.compile(r"^__proto__ ")])
    for one in legend.all_inner_texts():
        assert re.search(r" \d+(\.\d)?%$", one), one
    assert "NaN" not in page.locator("#chart").inner_html()
    assert all(height > 0 for height in heights(page))
    wait_for_marks(page, "toString came", "hasOwnProperty came")
    expect(row(page, "__proto__").locator(".labels")).to_have_text("__proto__=__proto__")


def write_replica(valkey: Valkey, hostname: str, **fields: str) -> None:
    """Write what a replica of another release may have written."""
    own = {"hostname": hostname, "visits": "1", "started": f"{time.time():.3f}"}
    key = f"{{counter}}:process:of-{hostname}"
    valkey.client.hset(key, mapping=own | fields)  # type: ignore[arg-type]
    valkey.client.expire(key, 60 * 60)
    valkey.client.zadd("{counter}:processes", {f"of-{hostname}": time.time()})


def test_a_single_idle_replica_is_no_fallen_one(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}", script=REPLICA, HOSTNAME="web-1")
    page = open_page(server.url).page
    expect(page.locator("#none")).to_be_visible()
    is_live(page)
    server.visits()
    expect(page.locator("#none")).to_be_hidden()
    expect(row(page, "web-1").locator(".seen")).to_have_text(re.compile(r"^([6-9]|\d\d)s ago$"))
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
    assert reached[-2].endswith(happened(page)[0])  # the list, which may have to be scrolled
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
    wait_for_draws(page, 3)
    assert page.evaluate("() => globalThis.spoken") == 0


def test_nothing_moves_for_who_prefers_no_motion(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = counting(f"--redis-url={valkey.url}")
    server.visits()
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = open_page(server.url, reduced_motion=motion).page
        bar = page.locator("tbody .bar")
        expect(bar).to_be_attached()
        seconds = bar.evaluate("(one) => getComputedStyle(one).transitionDuration")
        assert (seconds != "0s") is moves
