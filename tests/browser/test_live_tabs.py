"""The live page in many tabs of one browser, which allows a host six connections (HTTP/1.1)."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opened
from tests.browser.live import Open, happened, is_live, status, steps, streams, wait_for_steps
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

#: Seven streams would be one more than the browser allows.
SEVEN = 7

#: What no test can do to a page from outside: hide it, and let no tab hear of another.
TRICKS = """
globalThis.hide = (hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};
const send = BroadcastChannel.prototype.postMessage;
BroadcastChannel.prototype.postMessage = function (message) {
  if (!localStorage.areMute) send.call(this, message);
};
"""


@pytest.fixture
def tabs(open_page: Open) -> Open:
    """Open pages as the tabs of one browser."""
    opened: list[Opened] = []

    def open_tab(url: str) -> Opened:
        beside = {"beside": opened[0]} if opened else {"script": TRICKS}
        opened.append(open_page(url, **beside))
        return opened[-1]

    return open_tab


def visit_until_drawn(server: Program, page: Page, number: int) -> int | None:
    """Visit until so many steps are drawn, and return the last visit's number."""
    visit = None
    while steps(page) < number:
        visit = server.visits()
        expect(page.locator("#total")).to_have_text(str(visit))
    return visit


def all_show(tabs: list[Opened], number: int | None) -> None:
    for one in tabs:
        expect(one.page.locator("#total")).to_have_text(str(number))
        is_live(one.page)


def share_one_stream(tabs: list[Opened], server: Program) -> None:
    all_show(tabs, server.visits())
    wait_until(lambda: streams(server) == 1)


def test_seven_tabs_share_one_stream_and_an_eighth_page_loads(
    valkey: Valkey, server: Program, tabs: Open
) -> None:
    live = [tabs(server.url) for _ in range(SEVEN)]
    for _ in range(2):
        share_one_stream(live, server)
    expect(tabs(f"{server.url}/").page.get_by_text("Hello world!")).to_be_visible()
    all_show(live, valkey.counter())


def test_a_tab_that_is_opened_later_starts_with_what_the_others_have(
    server: Program, tabs: Open
) -> None:
    first = tabs(server.url).page
    visit_until_drawn(server, first, 2)
    later = tabs(server.url).page
    is_live(later)
    assert steps(later) >= 2
    assert happened(later) == happened(first) != []
    wait_until(lambda: streams(server) == 1)


def test_tabs_of_another_view_have_a_stream_of_their_own(server: Program, tabs: Open) -> None:
    views = [tabs(f"{server.url}/live?last={last}") for last in ("5m", "1h", "1h", "1d")]
    all_show(views, server.visits())
    wait_until(lambda: streams(server) == 3)
    for one in views:
        wait_for_steps(one.page, 1)


def test_when_the_tab_that_has_the_stream_goes_another_one_takes_over(
    server: Program, tabs: Open
) -> None:
    goings: list[Callable[[Page], object]] = [
        lambda page: page.close(),
        lambda page: page.goto(f"{server.url}/healthz"),
        lambda page: page.evaluate("() => hide(true)"),
    ]
    live = [tabs(server.url)]
    share_one_stream(live, server)  # it is the first one's
    live += [tabs(server.url) for _ in goings]
    for go in goings:
        share_one_stream(live, server)
        go(live.pop(0).page)
        for _ in range(2):
            share_one_stream(live, server)


def test_all_tabs_come_back_after_a_restart_of_the_server(
    restartable: Callable[[], Program], tabs: Open
) -> None:
    server = restartable()
    live = [tabs(server.url) for _ in range(SEVEN)]
    all_show(live, server.visits())
    for one in live:
        one.may_lose = True
    server.signal()
    assert server.wait() == 0
    for one in live:
        expect(status(one.page)).to_contain_text("Connection lost")
    share_one_stream(live, restartable())


def test_a_hidden_tab_has_no_stream_and_catches_up_when_it_is_shown(
    server: Program, tabs: Open
) -> None:
    tab = tabs(server.url)
    all_show([tab], server.visits())
    wait_for_steps(tab.page, 1)
    tab.page.evaluate("() => hide(true)")
    wait_until(lambda: streams(server) == 0)
    watching = tabs(server.url).page  # while that one rests
    number = visit_until_drawn(server, watching, steps(tab.page) + 2)
    expect(tab.page.locator("#total")).to_have_text("1")
    tab.page.evaluate("() => hide(false)")
    all_show([tab], number)
    wait_for_steps(tab.page, steps(watching))  # it has what it missed
    wait_until(lambda: streams(server) == 1)


def test_of_two_tabs_that_have_a_stream_one_gives_it_up(server: Program, tabs: Open) -> None:
    first = tabs(server.url)
    all_show([first], server.visits())
    first.page.evaluate("() => { localStorage.areMute = true; }")
    other = tabs(server.url)
    wait_until(lambda: streams(server) == 2)
    first.page.evaluate("() => { localStorage.removeItem('areMute'); }")
    wait_until(lambda: streams(server) == 1)
    all_show([first, other], server.visits())


def test_tabs_that_are_opened_at_once_end_with_one_stream(server: Program, tabs: Open) -> None:
    live = [tabs("about:blank") for _ in range(SEVEN)]
    for one in live:
        one.page.evaluate("(url) => { location.href = url; }", f"{server.url}/live")
    share_one_stream(live, server)
