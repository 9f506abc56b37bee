"""The button that sends visits."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import NAMES, Opened
from tests.browser.live import Open, Start, is_live, photograph, start_replica, wait_for_draws
from tests.support.balancer import Balancer
from tests.support.valkey import Valkey


@pytest.fixture
def balanced(valkey: Valkey, program: Start) -> Iterator[str]:
    """Three replicas of two versions behind a balancer that chooses for each request."""
    versions = dict(zip(NAMES, ("1.0", "1.0", "1.1"), strict=True))
    flag = f"--redis-url={valkey.url}"
    started = [start_replica(program, name, flag, version=versions[name]) for name in NAMES]
    with Balancer([one.port for one in started], every=0.2, keep_alive=True) as balancer:
        yield balancer.url


def squares(page: Page) -> Locator:
    return page.locator("#squares > svg")


def sent(page: Page) -> dict[str, int]:
    """The summary: who answered, and how often."""
    text = page.locator("#sent").inner_text()
    pairs = (one.rsplit(" ×", 1) for one in text.split(", ") if one)
    return {who: int(times) for who, times in pairs}


def has_stopped(page: Page, valkey: Valkey) -> None:
    """Assert that no more are sent, and that all that were have counted."""
    expect(page.locator("#sent")).to_have_attribute("aria-busy", "false")
    count = valkey.counter()
    wait_for_draws(page, 2)
    assert valkey.counter() == count == sum(sent(page).values())


def test_opening_the_page_counts_nothing_and_the_button_says_that_it_counts(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    page = open_page(counting(f"--redis-url={valkey.url}").url).page
    is_live(page)
    wait_for_draws(page, 2)
    assert valkey.counter() == 0
    button = page.get_by_role("button", name="Hold to send visits")
    expect(button).to_have_accessible_description("Ten a second, and each one counts.")


def test_visits_are_sent_while_the_button_is_held_and_drawn_by_version_with_who_answered(
    valkey: Valkey, balanced: str, open_page: Open
) -> None:
    page = open_page(balanced).page
    is_live(page)
    page.get_by_role("button", name="Hold to send visits").hover()
    page.mouse.down()
    expect(page.locator("#sent")).to_have_attribute("aria-busy", "true")
    page.wait_for_function("() => document.querySelectorAll('#squares > svg').length >= 30")
    page.mouse.up()
    has_stopped(page, valkey)
    assert sent(page).keys() == set(NAMES)
    assert squares(page).count() == sum(sent(page).values())
    drawn = squares(page).evaluate_all(
        "(all) => all.map((one) => [one.querySelector('title').textContent,"
        " one.querySelector('path').getAttribute('fill')])"
    )
    fills = {name: {fill for who, fill in drawn if who == name} for name in NAMES}
    assert fills["web-1"] == fills["web-2"]
    assert len(fills["web-1"]) == len(fills["web-3"]) == 1
    assert fills["web-1"] != fills["web-3"]
    photograph(page, "send")


@pytest.mark.parametrize("key", [" ", "Enter"])
def test_the_keyboard_holds_it_too(
    key: str, valkey: Valkey, counting: Start, open_page: Open
) -> None:
    page = open_page(counting(f"--redis-url={valkey.url}").url).page
    is_live(page)
    page.get_by_role("button", name="Hold to send visits").focus()
    page.keyboard.down(key)
    expect(squares(page).nth(4)).to_be_attached()
    page.keyboard.up(key)
    has_stopped(page, valkey)


def blur(page: Page) -> None:
    page.evaluate("() => document.activeElement.blur()")


def hide(page: Page) -> None:
    page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", { value: false, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )


def cancel(page: Page) -> None:
    page.locator("#send").dispatch_event("pointercancel")


@pytest.mark.parametrize("leave", [blur, hide, cancel])
def test_it_stops_when_the_button_is_left_without_being_let_go(
    leave: Callable[[Page], None], valkey: Valkey, counting: Start, open_page: Open
) -> None:
    page = open_page(counting(f"--redis-url={valkey.url}").url).page
    is_live(page)
    page.get_by_role("button", name="Hold to send visits").hover()
    page.mouse.down()
    expect(squares(page).nth(2)).to_be_attached()
    leave(page)
    has_stopped(page, valkey)


def test_a_click_of_a_screen_reader_sends_for_one_second(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    page = open_page(counting(f"--redis-url={valkey.url}").url).page
    is_live(page)
    page.locator("#send").evaluate("(button) => button.click()")
    has_stopped(page, valkey)
    assert 1 <= valkey.counter() <= 10


def test_errors_and_visits_without_a_number_have_shapes_of_their_own(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    flags = (f"--redis-url={valkey.url}", "--faults", "--fault-rate=1")
    server = start_replica(counting, "web-1", *flags)
    opened = open_page(server.url)
    page = opened.page
    is_live(page)
    button = page.get_by_role("button", name="Hold to send visits")

    def send() -> None:
        button.focus()
        page.keyboard.down(" ")
        page.wait_for_timeout(300)
        page.keyboard.up(" ")
        expect(page.locator("#sent")).to_have_attribute("aria-busy", "false")

    send()
    assert sent(page).keys() == {"error 503"}
    assert squares(page).count() == squares(page).filter(has=page.locator("path.silent")).count()
    opened.complaints = [one for one in opened.complaints if "status of 503" not in one]

    # Not from the page, whose requests tell their origin, and are refused.
    assert server.put("/faults", b'{"rate": 0}')[0] == 200
    valkey.kill()
    send()
    assert "web-1 (not counted)" in sent(page)
    expect(page.locator("#squares .ring").first).to_be_visible()

    opened.may_lose = True
    server.process.kill()
    server.process.wait()
    send()
    assert "no answer" in sent(page)


def test_no_more_than_ten_are_under_way(valkey: Valkey, counting: Start, open_page: Open) -> None:
    server = start_replica(
        counting, "web-1", f"--redis-url={valkey.url}", "--faults", "--fault-wait=3s"
    )
    opened: Opened = open_page(server.url)
    page = opened.page
    is_live(page)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.locator("#send").focus()
    page.keyboard.down("Enter")
    page.wait_for_timeout(2000)
    page.keyboard.up("Enter")
    assert asked.count(f"{server.url}/") <= 10
