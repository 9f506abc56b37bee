"""The live page in many tabs of one browser, which allows a host six connections (HTTP/1.1)."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opened
from tests.browser.live import HIDE, Open, happened, is_live, status, steps, streams, wait_for_steps
from tests.support.program import Program
from tests.support.waiting import wait_until

#: Seven streams would be one more than the browser allows.
SEVEN = 7

#: What no test can do to a page from outside: hide it, and let no tab hear of another.
TRICKS = f"""{HIDE}
const send = BroadcastChannel.prototype.postMessage;
BroadcastChannel.prototype.postMessage = function (message) {{
  if (!localStorage.areMute) send.call(this, message);
}};
"""


@pytest.fixture
def tabs(open_page: Open) -> Open:
    opened: list[Opened] = []

    def open_tab(url: str) -> Opened:
        beside = {"beside": opened[0]} if opened else {"script": TRICKS}
        opened.append(open_page(url, **beside))
        return opened[-1]

    return open_tab


def visit_until_drawn(server: Program, page: Page, number: int) -> None:
    while steps(page) < number:
        expect(page.locator("#total")).to_have_text(str(server.visits()))


def share_one_stream(tabs: list[Opened], server: Program) -> None:
    """Visit, and wait until all tabs show the number, and have one stream together."""
    number = server.visits()
    for one in tabs:
        expect(one.page.locator("#total")).to_have_text(str(number))
        is_live(one.page)
    wait_until(lambda: streams(server) == 1)


def test_seven_tabs_that_are_opened_at_once_share_one_stream_and_come_back_after_a_restart(
    restartable: Callable[[], Program], tabs: Open
) -> None:
    server = restartable()
    live = [tabs("about:blank") for _ in range(SEVEN)]
    for one in live:
        one.page.evaluate("(url) => { location.href = url; }", f"{server.url}/live")
    for _ in range(2):
        share_one_stream(live, server)
    eighth = tabs(f"{server.url}/").page
    expect(eighth.get_by_text("Hello world!")).to_be_visible()
    for one in live:
        one.may_lose = True
    server.signal()
    assert server.wait() == 0
    for one in live:
        expect(status(one.page)).to_contain_text("Connection lost")
    share_one_stream(live, restartable())


def test_tabs_of_another_view_have_a_stream_of_their_own(server: Program, tabs: Open) -> None:
    views = [tabs(f"{server.url}/live?last={last}") for last in ("5m", "1h", "1h", "1d")]
    server.visits()
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


def test_a_tab_that_is_opened_later_or_was_hidden_has_what_the_others_have(
    server: Program, tabs: Open
) -> None:
    first = tabs(server.url).page
    visit_until_drawn(server, first, 2)
    later = tabs(server.url).page
    is_live(later)
    wait_for_steps(later, 2)
    assert happened(later) == happened(first) != []
    wait_until(lambda: streams(server) == 1)
    shown = later.locator("#total").inner_text()
    for page in (first, later):
        page.evaluate("() => hide(true)")
    wait_until(lambda: streams(server) == 0)
    first.evaluate("() => hide(false)")
    visit_until_drawn(server, first, steps(later) + 2)
    expect(later.locator("#total")).to_have_text(shown)
    later.evaluate("() => hide(false)")
    expect(later.locator("#total")).to_have_text(first.locator("#total").inner_text())
    wait_for_steps(later, steps(first))  # it has what it missed
    wait_until(lambda: streams(server) == 1)


def test_of_two_tabs_that_have_a_stream_one_gives_it_up(server: Program, tabs: Open) -> None:
    first = tabs(server.url)
    share_one_stream([first], server)
    first.page.evaluate("() => { localStorage.areMute = true; }")
    other = tabs(server.url)
    wait_until(lambda: streams(server) == 2)
    first.page.evaluate("() => { localStorage.removeItem('areMute'); }")
    share_one_stream([first, other], server)
